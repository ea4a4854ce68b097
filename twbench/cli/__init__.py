"""The command line: one thin file per command. May import everything; nothing imports it."""

import sys


def main() -> None:
    """Run the command line and leave with the documented exit status."""
    # imported late: `import twbench.cli` stays light
    from twbench.cli.app import run

    sys.exit(run())
