"""Trains the tiny models from nothing: `python -m safecode_guard.tiny.train chat|judge|nano`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from safecode_guard.tiny.card import write_card
from safecode_guard.tiny.training import CHECKPOINT, RECIPES, Training, export, run

PROGRAM: Final = "python -m safecode_guard.tiny.train"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    recipe = RECIPES[options.model]
    if options.steps is not None:
        recipe = replace(recipe, steps=options.steps)
    out = options.out or Path(__file__).parent / "weights" / recipe.folder
    training = Training(recipe, seed=options.seed)
    if options.resume and (out / CHECKPOINT).exists():
        training.restore(out / CHECKPOINT)
    run(training, out / CHECKPOINT)
    export(training, out)
    command = f"{PROGRAM} {options.model} --seed {options.seed} --steps {recipe.steps}"
    write_card(training, command, out)
    (out / CHECKPOINT).unlink()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("model", choices=tuple(RECIPES))
    parser.add_argument("--out", type=Path, help="where the weights go; default: the package")
    parser.add_argument("--steps", type=int, help="steps on packed rows after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
