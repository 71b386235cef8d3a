"""What the benchmarks' options can be; what cannot be is told before anything is loaded."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from safecode_guard.errors import GuardError, likely


class WrongOption(GuardError):
    """An option that a command does not have, or a value that it cannot have."""


class Parser(argparse.ArgumentParser):
    """A parser that raises `WrongOption`, and knows the option that was probably meant."""

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Return the options.

        Raises:
            WrongOption: If there is no such option, or a value is none of it.
        """
        options, rest = self.parse_known_args(arguments)
        if rest and rest[0].startswith("-"):
            name = rest[0].partition("=")[0]
            known = [each for each in self._option_string_actions if each.startswith("--")]
            raise WrongOption(f"There is no option {name!r}.", hint=likely(name, known, self._help))
        if rest:
            raise WrongOption(f"{rest[0]!r} belongs to no option.", hint=self._help)
        return options

    def add_model(self, what: str = "model directory") -> None:
        """Add the directory of the model that answers."""
        self.add_argument(
            "--model",
            type=model_folder,
            metavar="DIR",
            help=f"{what}; default: the embedded one",
        )

    def add_labelled(self, pairs: int) -> None:
        """Add the guarded model, and the labelled turns that something is fitted to it on."""
        self.add_model("the guarded model")
        self.add_argument(
            "--data",
            type=existing_file,
            metavar="FILE",
            help="labelled pairs, as for bench paired",
        )
        self.add_argument(
            "--pairs",
            type=at_least(1),
            default=pairs,
            help=f"pairs of the drawn world without it ({pairs})",
        )

    def add_prototypes(self) -> None:
        """Add the file that row and judge ras need."""
        self.add_argument(
            "--prototypes",
            type=existing_file,
            metavar="FILE",
            help="of row and judge ras; see `ras fit`",
        )

    def add_resume(self) -> None:
        """Add the file of a `Ledger`."""
        self.add_argument(
            "--resume",
            type=new_file,
            metavar="FILE",
            help="keep answers here, and start from them",
        )

    def error(self, message: str) -> NoReturn:
        """Raise what argparse has to say."""
        said = message.removeprefix("argument ")
        raise WrongOption(f"{said[:1].upper()}{said[1:]}.", hint=self._help)

    @property
    def _help(self) -> str:
        return f"See `{self.prog} --help`."


@contextmanager
def value_of(option: str) -> Iterator[None]:
    """Say of an error which option it is about: a name that was typed into it is not known."""
    try:
        yield
    except GuardError as error:
        raise WrongOption(f"{option}: {error.message}", hint=error.hint) from error


def at_least(least: int) -> Callable[[str], int]:
    """Return what reads whole numbers from this one on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} is less than {least}")
        return number

    return read


def share(text: str) -> float:
    """Read a share: more than 0, less than 1."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def existing_file(text: str) -> Path:
    """Read the name of a file that is there."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory")
    return Path(text)


def model_folder(text: str) -> Path:
    """Read the name of a directory that a model was saved in."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    if not (Path(text) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} holds no model: it has no config.json")
    return Path(text)


def new_file(text: str) -> Path:
    """Read the name of a file that can be written."""
    if (why := why_not_writable(Path(text))) is not None:
        raise argparse.ArgumentTypeError(why)
    return Path(text)


def why_not_writable(path: Path) -> str | None:
    """Return why there can be no file of a name; None if there can."""
    if path.is_dir():
        return f"{str(path)!r} is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {str(path.parent)!r} to write {path.name!r} to"
    return None
