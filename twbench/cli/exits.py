"""The exit statuses that scripts may rely on."""

from enum import IntEnum


class Exit(IntEnum):
    """What the program leaves with; 2 and 3 are carried by the errors of `model/errors.py`."""

    DONE = 0
    """Done, and every threshold was met."""
    HARNESS_FAILED = 1
    """An experiment did not come about: of a claim, or of a trace whose connection broke off."""
    USAGE = 2
    """The scenario or the arguments are wrong, or the results folder cannot be used."""
    NO_LAB = 3
    """The lab cannot be made here."""
    THRESHOLD_MISSED = 4
    NOT_BALANCED = 5
    """The audit does not balance, or a process of the run failed and so ended it early."""
    INTERRUPTED = 130
    """A run was interrupted; everything up to then is recorded."""
