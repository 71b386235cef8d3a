"""The command line: ``safecode-guard demo | ask | check | policy | doctor | bench``."""

import sys

from safecode_guard.cli import exits

__all__ = ["main"]


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word, while it still loads as well."""
    try:
        from safecode_guard.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(exits.INTERRUPTED)
