"""Secrets below the first level of a model's options."""

from __future__ import annotations

from typing import Any

import pytest

from safecode_guard import ChatTransformers
from tests.unit.runnables.guards import guarded

HUNTER = "hf_hunter2"


@pytest.mark.parametrize(
    "options",
    [
        {"hub": {"token": HUNTER}},
        {"hub": [{"token": HUNTER}]},
        {"headers": {"Authorization": f"Bearer {HUNTER}"}},
        {"proxies": {"https": f"http://user:{HUNTER}@proxy:80"}},
        {"access_key": HUNTER},
        {"credentials": HUNTER},
    ],
    ids=["nested", "listed", "header", "proxy", "key", "credentials"],
)
def test_no_secret_of_a_models_options_is_shown(options: dict[str, Any]) -> None:
    model = ChatTransformers.tiny(model_kwargs=options)
    guard = guarded(0.1, model=model)
    shown = (repr(model), model._identifying_params, repr(guard), guard._identifying_params)
    assert HUNTER not in str(shown)
