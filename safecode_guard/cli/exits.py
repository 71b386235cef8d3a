"""Exit codes: what a script learns from the command line."""

from __future__ import annotations

from typing import Final

from safecode_guard.taxonomy import Action

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
EXIT_OF: Final[dict[Action, int]] = {"pass": OK, "guide": OK, "review": 3, "block": 4}

HELP: Final = """
Exit codes: 0 done (action pass or guide), 1 error, 2 wrong usage, 3 action review,
4 action block, 130 interrupted.
"""
