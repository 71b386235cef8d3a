from __future__ import annotations

from pathlib import Path

import pytest
from support import Disk


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    folder = tmp_path / "ran"
    folder.mkdir()
    return Disk(folder)


@pytest.fixture(params=["invoke", "ainvoke", "stream", "astream"])
def form(request: pytest.FixtureRequest) -> str:
    return request.param
