"""What can be said of a run that was killed before its summary was written."""

from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from twbench.record.reader import Run


def render_partial(run: Run) -> RenderableType:
    """Return the sums of the lines that there are."""
    fleet = [line for line in run.outcomes if line.get("host") != "server"]
    errors: Counter[str] = Counter()
    for line in fleet:
        errors.update(line.get("errors", {}))
    attempted, ok = (sum(line.get(key, 0) for line in fleet) for key in ("attempted", "ok"))
    last_s = max((line["t_s"] for line in (*run.samples, *run.outcomes)), default=0.0)
    lines = [
        f"{run.run_id}: the run was ended before its summary; its lines reach to {last_s:.1f} s",
        f"attempted {attempted:,}, ok {ok:,}",
        *(f"{count:,} {key}" for key, count in errors.most_common()),
        *(f"peak TIME_WAIT, {stack}: {peak:,}" for stack, peak in _peaks(run).items()),
    ]
    if run.missing:
        lines.append(f"missing: {', '.join(run.missing)}")
    if run.truncated:
        lines.append(f"last line cut off: {', '.join(run.truncated)}")
    return Group(*(Text(line) for line in lines))


def _peaks(run: Run) -> dict[str, int]:
    peaks: dict[str, int] = {}
    for line in run.samples:
        count = line["sockstat"].get("tw", 0)
        peaks[line["stack"]] = max(count, peaks.get(line["stack"], 0))
    return peaks
