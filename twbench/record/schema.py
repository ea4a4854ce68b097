"""Names and version of what a run leaves in results/<run-id>/."""

import re
from datetime import UTC, datetime

SCHEMA_VERSION = 1
"""Goes up when a reader of the files has to know of a change."""

SCENARIO = "scenario.toml"
ENVIRONMENT = "environment.json"
SUMMARY = "summary.json"
"""Written last: a folder with a summary is a run that came to its end."""

SAMPLES = "samples.jsonl"
LOOKS = "looks.jsonl"
OUTCOMES = "outcomes.jsonl"
EVENTS = "events.jsonl"
STREAMS = (SAMPLES, LOOKS, OUTCOMES, EVENTS)

FLUSH_EVERY_S = 1.0
"""No line waits longer than this for its file, as long as the writer is told the time."""

RUN_ID = re.compile(r"(?P<started>\d{8}T\d{6}Z)-(?P<slug>[a-z0-9-]+)-(?P<suffix>[0-9a-f]+)")
_LONGEST_SLUG = 48


def make_run_id(name: str, *, started: datetime, suffix: str) -> str:
    """Return the folder name of a run: it sorts by time and can be typed.

    Args:
        name: of the scenario; anything but ASCII letters and digits becomes a hyphen.
        started: when, with its time zone.
        suffix: hexadecimal digits that tell apart runs started in the same second.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-")
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{slug or 'run'}-{suffix}"
