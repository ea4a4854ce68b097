"""`twbench doctor`: what this machine can do, and how to mend what it cannot."""

from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from twbench.cli.options import Json
from twbench.cli.show import print_json, stdout
from twbench.lab.doctor import NEEDED_DESCRIPTORS, Status, has_own_lab, judge
from twbench.lab.probes import gather

_STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
_NO_LAB = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "doctor",
        help="Tell what this machine can do, and how to mend what it cannot.",
        epilog=(
            "Example: twbench doctor --json · "
            "Exit status 3: no lab of its own is possible here (neither link 'veth' nor"
            " 'loopback'), only link 'host'."
        ),
    )(doctor)


def doctor(*, json: Json = False) -> None:
    """Examine this machine."""
    facts = gather()
    findings = judge(facts, needed_descriptors=NEEDED_DESCRIPTORS)
    if json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        table = Table("", "what", "found", "which means", header_style="dim")
        for finding in findings:
            status = Text(finding.status.value, style=_STYLES.get(finding.status, ""))
            means = finding.means + (f"\nremedy: {finding.remedy}" if finding.remedy else "")
            table.add_row(status, finding.name, finding.found, means)
        stdout().print(table)
    if not has_own_lab(facts):
        raise typer.Exit(_NO_LAB)
