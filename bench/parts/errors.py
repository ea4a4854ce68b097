"""What keeps a load from being measured: a row says why, and the others are measured still."""


class UnavailableError(Exception):
    """A peer, a server or an engine is not to be had here; the text is the reason, in one line."""


class BrokenError(Exception):
    """A process or an attempt failed, or the two sides count differently: a fault, here or there.

    The first line says what; what the process said follows.
    """
