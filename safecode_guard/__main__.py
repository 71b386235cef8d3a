"""``python -m safecode_guard``: the command line."""

from safecode_guard.cli import main

if __name__ == "__main__":
    main()
