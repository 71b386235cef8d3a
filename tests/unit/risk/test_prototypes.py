"""The artifact of RAS: what it keeps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safecode_guard.errors import PolicyError
from safecode_guard.risk.prototypes import Fitted, Prototypes

FITTED = Fitted("chat@7587f4", s0=0.49, k=9.01, cap=30.0, refused=27, examples=100, data="pairs")


def prototypes(seed: int = 0, **changes: object) -> Prototypes:
    logits = torch.randn((3, 9), generator=torch.Generator().manual_seed(seed))
    return Prototypes(logits, replace(FITTED, **changes))  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made, file = prototypes(), tmp_path / "ras.safetensors"
    made.write(file)
    read = Prototypes.read(file)
    assert torch.equal(read.logits, made.logits)
    assert (read.fitted, read.id) == (made.fitted, made.id)


def test_the_id_is_of_all_of_it() -> None:
    others = [prototypes(1), prototypes(s0=0.5), prototypes(cap=None), prototypes(engine_id="x@1")]
    assert len({each.id for each in (prototypes(), *others)}) == 5


def test_other_weights_are_refused_and_other_names_are_not() -> None:
    prototypes().check("moved@7587f4")
    with pytest.raises(PolicyError, match="'chat@7587f4', not of 'chat@000000'"):
        prototypes().check("chat@000000")
    with pytest.raises(PolicyError, match="not of 'no digest'"):
        prototypes().check("no digest")


def test_another_wording_is_refused() -> None:
    with pytest.raises(PolicyError, match="wording"):
        prototypes(prompts="old").check("chat@7587f4")


def test_a_missing_file_is_told_apart_from_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        Prototypes.read(tmp_path / "none")
    (tmp_path / "text").write_text("not a tensor in sight")
    with pytest.raises(PolicyError, match="holds no prototypes"):
        Prototypes.read(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(PolicyError, match="holds no prototypes"):
        Prototypes.read(tmp_path / "weights")


@pytest.mark.parametrize("name", ["s0", "k", "gamma", "cap"])
def test_numbers_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    prototypes(**{name: float("nan")}).write(tmp_path / "ras")
    with pytest.raises(PolicyError, match="holds no prototypes"):
        Prototypes.read(tmp_path / "ras")
