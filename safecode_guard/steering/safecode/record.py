"""The record of one answer's steering: what was used, complete, and nothing that was not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from safecode_guard.errors import PolicyError
from safecode_guard.policy import Recipe
from safecode_guard.steering.protocol import Direction
from safecode_guard.steering.safecode.refusals import LexiconRecord

Quirk = Literal[
    "force_phrase",
    "prefer_apologies",
    "every_phrase_token",
    "greedy_first_token",
    "skip_leading_quote",
    "end_early",
]
"""Of `ReferenceQuirks`, those that do more than change a number; the others are in the numbers."""

_NOISE: Final = frozenset({"sigma", "noise_order"})
_CONTRAST: Final = frozenset({"alpha", "normalise", "reference_view"}) | _NOISE
_GUARDED: Final = frozenset({"most_steps", "reasoning"})
_MODULATION: Final = frozenset({"push", "top_k", "root_weight"}) | _GUARDED


class SafeCoDeRecord(BaseModel):
    """The steering of one answer. Equal records steer equally; what is left out was not used.

    Example:
        >>> record = SafeCoDeRecord(recipe="paper", direction="boost", steps=5)
        >>> record.to_json()
        {'recipe': 'paper', 'direction': 'boost', 'steps': 5}
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    recipe: Recipe
    direction: Direction
    steps: int = Field(gt=0)
    """Tokens that are steered, T."""
    most_steps: int | None = None
    """Recipe ``guarded``: tokens that are steered at most, while the text is within a refusal."""
    reasoning: Literal["skip", "steer"] | None = None
    """Recipe ``guarded``: what is done to a model's reasoning."""
    alpha: float = Field(default=0, ge=0)
    """Weight of the second view, as used; 0: there is none."""
    normalise: Literal["none", "rescale", "vcd"] | None = None
    reference_view: Literal["noise", "grey"] | None = None
    sigma: float | None = None
    noise_order: Literal["after_resize", "before_resize"] | None = None
    push: float = 0
    """Added to the logits of refusal tokens, as used: scaled, and negative to suppress them."""
    top_k: int | None = None
    """Reach of the push; None: the whole vocabulary."""
    root_weight: float | None = None
    """Share of the push for stems; None: all of it."""
    plausibility: float = 0
    lexicon: LexiconRecord | None = None
    quirks: tuple[Quirk, ...] = ()
    later_temperature: float | None = None
    """Recipe ``reference``: tokens after the first are drawn at it."""
    max_tokens: int | None = None
    seed: int | None = None
    """Of the noise, and of tokens that are drawn."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        # a gap would be steered over in silence, and more weakly
        if missing := [name for name in _needed(self) if getattr(self, name) is None]:
            raise ValueError(f"the record lacks {', '.join(missing)}")
        if self.push and (self.push > 0) != (self.direction == "boost"):
            raise ValueError("push and direction contradict each other")
        return self

    @classmethod
    def of(cls, values: Mapping[str, Any], *, pictures: bool) -> Self:
        """Return the record of the values in force, without those that this answer cannot use.

        Args:
            values: All of them by name.
            pictures: Whether the turn has any; if not, there is nothing to contrast.
        """
        unused = _unused(values, pictures=pictures)
        return cls(**{name: value for name, value in values.items() if name not in unused})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the record that was written as JSON.

        Raises:
            PolicyError: If it is none, or one of another version.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            wrong = (".".join(map(str, e["loc"])) or e["msg"] for e in error.errors())
            raise PolicyError(
                f"The record of the strategy 'safecode' is wrong: {', '.join(wrong)}.",
                hint="Run the same version of safecode-guard on both sides.",
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON types, without what was not used."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _needed(record: SafeCoDeRecord) -> Iterator[str]:
    """Yield the names of the values that the others make necessary."""
    if record.alpha:
        yield from ("normalise", "reference_view")
    if record.reference_view == "noise":
        yield from ("sigma", "noise_order", "seed")
    if record.push and record.recipe != "reference":
        yield "top_k"
    if record.push and record.recipe == "guarded":
        yield from _GUARDED
    if record.push or "force_phrase" in record.quirks:
        yield "lexicon"
    if record.later_temperature is not None:
        yield "seed"


def _unused(values: Mapping[str, Any], *, pictures: bool) -> frozenset[str]:
    """Return the names of the values that change nothing."""
    unused: frozenset[str] = frozenset()
    if not pictures or not values["alpha"]:
        unused |= _CONTRAST
    elif values["reference_view"] == "grey":
        unused |= _NOISE
    if not values["push"]:
        unused |= _MODULATION
        if "force_phrase" not in values["quirks"]:
            unused |= {"lexicon"}
    if values["recipe"] != "guarded":
        unused |= _GUARDED
    if values["recipe"] != "guarded" or values["push"] > 0:
        unused |= {"root_weight"}
    if unused >= _NOISE and values["later_temperature"] is None:
        unused |= {"seed"}
    return unused
