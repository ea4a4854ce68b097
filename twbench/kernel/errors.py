"""The one error of the codecs."""

from twbench.model.errors import TwbenchError


class CodecError(TwbenchError):
    """Bytes from the kernel that do not have the expected shape: truncated, foreign or corrupt."""
