"""The command line: ``safecode-guard demo | ask | check | policy | doctor | bench``."""

from safecode_guard.cli.app import main

__all__ = ["main"]
