"""What the wire raises."""

from twbench.model.errors import TwbenchError


class StageError(TwbenchError):
    """A host on the wire does not answer, or never stops sending."""


class StoppedError(TwbenchError):
    """The stage was asked to stop while it played."""

    exit_status = 130
