"""The results folder: what a run writes as it happens, and reading it back.

This room knows file names, the schema's version and how to lose nothing. It does not know what the
objects mean, takes the time as an argument, and reads or writes nothing outside the folder given.
"""

from twbench.record.reader import Run, latest, read_run
from twbench.record.schema import (
    ENVIRONMENT,
    EVENTS,
    LOOKS,
    OUTCOMES,
    SAMPLES,
    SCENARIO,
    SCHEMA_VERSION,
    STREAMS,
    SUMMARY,
    make_run_id,
)
from twbench.record.writer import RunWriter

__all__ = [
    "ENVIRONMENT",
    "EVENTS",
    "LOOKS",
    "OUTCOMES",
    "SAMPLES",
    "SCENARIO",
    "SCHEMA_VERSION",
    "STREAMS",
    "SUMMARY",
    "Run",
    "RunWriter",
    "latest",
    "make_run_id",
    "read_run",
]
