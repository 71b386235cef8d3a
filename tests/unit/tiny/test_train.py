import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safecode_guard.tiny import train
from safecode_guard.tiny.files import staged
from safecode_guard.tiny.training import RECIPES, Training

SHORT = replace(RECIPES["nano"], warm_up=3, steps=5, rows=4, warm_up_pictures=8)


def _steps(training: Training, n: int) -> list[float]:
    return [training.advance() for _ in range(n)]


def test_a_few_steps_lower_the_loss(tokenizer: Any) -> None:
    recipe = replace(RECIPES["nano"], warm_up=0, steps=60, rows=4)
    training = Training(recipe, seed=1, tokenizer=tokenizer)
    losses = _steps(training, 40)
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


@pytest.mark.parametrize("pause", [2, 3, 6], ids=["in the warm-up", "at its end", "after it"])
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    tokenizer: Any, tmp_path: Path, pause: int
) -> None:
    whole = Training(SHORT, seed=4, tokenizer=tokenizer)
    losses = _steps(whole, whole.total)

    first = Training(SHORT, seed=4, tokenizer=tokenizer)
    _steps(first, pause)
    first.save(tmp_path / "checkpoint.pt")
    second = Training(SHORT, seed=4, tokenizer=tokenizer)
    second.restore(tmp_path / "checkpoint.pt")

    assert _steps(second, whole.total - pause) == losses[pause:]
    ends = second.network.state_dict()
    assert all(torch.equal(value, ends[name]) for name, value in whole.network.state_dict().items())
    assert second.cpu_seconds > first.cpu_seconds > 0


def test_a_checkpoint_of_another_seed_or_recipe_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    Training(SHORT, seed=4, tokenizer=tokenizer).save(tmp_path / "checkpoint.pt")
    for other in (
        Training(SHORT, seed=5, tokenizer=tokenizer),
        Training(replace(SHORT, steps=6), seed=4, tokenizer=tokenizer),
    ):
        with pytest.raises(ValueError, match="another recipe or seed"):
            other.restore(tmp_path / "checkpoint.pt")


def test_another_seed_gives_other_weights(tokenizer: Any) -> None:
    losses = [_steps(Training(SHORT, seed=seed, tokenizer=tokenizer), 1) for seed in (1, 2)]
    assert losses[0] != losses[1]


def test_the_probe_measures_and_changes_nothing(tokenizer: Any) -> None:
    training = Training(SHORT, seed=1, tokenizer=tokenizer)
    before = {name: value.clone() for name, value in training.network.state_dict().items()}
    found = training.probe(rows=6)
    assert "judge" in found
    assert all(0 <= hit <= 1 for hit in found.values())
    assert training.network.training
    assert all(torch.equal(before[n], v) for n, v in training.network.state_dict().items())


def test_the_command_trains_measures_and_exports(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "nano", SHORT)
    monkeypatch.setattr("safecode_guard.tiny.training.build_tokenizer", lambda texts: tokenizer)
    monkeypatch.setattr("safecode_guard.tiny.card.PAIRS", 9)
    out = tmp_path / "nano"
    out.mkdir()
    tuned = {"steering": {"alpha": 0.5}}
    (out / "safecode.json").write_text(json.dumps(tuned))

    train.main(["nano", "--out", str(out), "--steps", "2", "--seed", "7"])

    card = (out / "README.md").read_text()
    assert "python -m safecode_guard.tiny.train nano --seed 7 --steps 2" in card
    assert "| judge, harmful | " in card
    assert json.loads((out / "safecode.json").read_text())["steering"] == tuned["steering"]
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    assert not (out / "checkpoint.pt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]


def test_an_interrupted_command_goes_on_from_its_checkpoint(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "nano", SHORT)
    monkeypatch.setattr("safecode_guard.tiny.training.build_tokenizer", lambda texts: tokenizer)
    begun = Training(SHORT, seed=0, tokenizer=tokenizer)
    _steps(begun, 6)
    begun.save(tmp_path / "checkpoint.pt")
    seen: list[int] = []

    def stop_before_the_card(training: Training, command: str, folder: Path) -> None:
        seen.append(training.step)

    monkeypatch.setattr(train, "write_card", stop_before_the_card)
    advanced: list[int] = []
    advance = Training.advance

    def counted(training: Training) -> float:
        advanced.append(training.step)
        return advance(training)

    monkeypatch.setattr(Training, "advance", counted)
    train.main(["nano", "--out", str(tmp_path), "--resume"])
    assert advanced == [6, 7]
    assert seen == [8]


def _write_half(folder: Path) -> None:
    with staged(folder) as stage:
        (stage / "a").write_text("new")
        (stage / "b").read_text()


def test_a_failed_write_leaves_the_old_files(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with staged(folder) as stage:
        (stage / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        _write_half(folder)
    assert (folder / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
