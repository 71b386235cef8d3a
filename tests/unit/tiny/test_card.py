from __future__ import annotations

import json
from pathlib import Path

from safecode_guard.tiny.card import SETTINGS, _settings
from safecode_guard.tiny.load import weights_path


def test_training_keeps_the_tuned_steering_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text('{"steering": {"alpha": 0.25}}')
    assert json.loads(_settings(tmp_path, "chat"))["steering"] == {"alpha": 0.25}


def test_training_elsewhere_starts_from_the_shipped_steering(tmp_path: Path) -> None:
    shipped = json.loads((weights_path("chat") / SETTINGS).read_text())
    assert json.loads(_settings(tmp_path, "chat")) == shipped
    assert json.loads(_settings(tmp_path, "another"))["steering"] == {}
