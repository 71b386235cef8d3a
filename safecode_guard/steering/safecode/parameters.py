"""The numbers of SafeCoDe, and where each comes from: policy, model, recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from safecode_guard.policy import DecodingPolicy, Recipe


class SteeringParameters(BaseModel):
    """Resolved parameters of guided turns; the meaning of each is in `DecodingPolicy`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    alpha: float
    contrast_below: float | None = None
    sigma: float
    noise_order: Literal["after_resize", "before_resize"]
    reference_view: Literal["noise", "grey"]
    normalise: Literal["none", "rescale", "vcd"]
    plausibility: float
    lambda_boost: float
    lambda_supp: float
    certainty_power: float
    guided_steps: int
    most_steps: int
    reasoning: Literal["skip", "steer"]
    top_k: int
    root_weight: float


_PAPER: dict[str, Any] = {
    "alpha": 0.3,
    "contrast_below": None,
    "sigma": 0.1,
    "noise_order": "before_resize",
    "reference_view": "noise",
    "normalise": "none",
    "plausibility": 0.0,
    "lambda_boost": 1.0,
    "lambda_supp": 1.0,
    "certainty_power": 0.0,
    "guided_steps": 5,
    "most_steps": 5,
    "reasoning": "steer",
    "top_k": 20,
    "root_weight": 1.0,
}
_GUARDED = _PAPER | {
    "noise_order": "after_resize",
    "normalise": "rescale",
    "plausibility": 0.1,
    "certainty_power": 1.0,
    "most_steps": 16,
    "reasoning": "skip",
    "root_weight": 0.5,
}
RECIPE_DEFAULTS: dict[Recipe, dict[str, Any]] = {
    "guarded": _GUARDED,
    "paper": _PAPER,
    "reference": _PAPER,
}


def resolve(policy: DecodingPolicy, model_defaults: Mapping[str, Any]) -> SteeringParameters:
    """Return the parameters in force: policy over the model's record over the recipe's values.

    The model's record speaks only for recipe ``guarded``; ``paper`` and ``reference`` are fixed.
    """
    values = dict(RECIPE_DEFAULTS[policy.recipe])
    if policy.recipe == "guarded":
        values |= model_defaults
    chosen = policy.model_dump(include=set(values))
    values |= {name: value for name, value in chosen.items() if value is not None}
    return SteeringParameters(recipe=policy.recipe, **values)
