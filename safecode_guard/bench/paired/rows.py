"""The strategies that a paired benchmark compares, each by its name and its decoding policy.

Beside the paper's method and the project's own stand their parts, so that what an effect is due
to can be read off, and the controls without which such a table misleads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from safecode_guard.errors import GuardError, likely
from safecode_guard.models.protocol import Engine
from safecode_guard.policy import Actions, DecodingPolicy, Policy, SameModelJudgeConfig
from safecode_guard.steering.protocol import Needs, SteeringContext, Strategy
from safecode_guard.steering.safecode.parameters import RECIPE_DEFAULTS, SteeringParameters, resolve
from safecode_guard.steering.safecode.views import second_views
from safecode_guard.turns.turn import Turn

_ALPHA: Final[float] = RECIPE_DEFAULTS["paper"]["alpha"]
_NO_PUSH: Final[dict[str, Any]] = {"lambda_boost": 0.0, "lambda_supp": 0.0}
JUDGE_ALONE: Final = "judge_alone"
"""No model answers: a turn counts as refused if the judge says unsafe, and else as helped."""


@dataclass(frozen=True)
class Row:
    """One strategy of the table."""

    name: str
    note: str
    decoding: DecodingPolicy
    judged: bool = True
    """Whether the verdict changes anything; if not, there is one line for all judges."""
    blocks: bool = False
    """An unsafe verdict ends the turn before the model is asked."""
    blind: bool = False
    """The model sees the second view in place of the picture."""
    follows: Literal["report", "retry", "replace"] = "report"
    """What follows an answer that did not obey."""

    def policy(self) -> Policy:
        """Return the policy that the row's turns are answered under."""
        actions = Actions(unsafe="block") if self.blocks else Actions()
        return Policy(
            name=self.name,
            decoding=self.decoding,
            actions=actions,
            judge=SameModelJudgeConfig(cache_size=0),
            on_disobeyed=self.follows,
            scene_judged="together",  # the judgement that is handed in is of the whole turn
        )

    def parameters(self, model: Engine) -> SteeringParameters:
        """Return the parameters in force for a model."""
        return resolve(self.decoding, model.family.steering)

    def own_strategy(self, model: Engine) -> Strategy | None:
        """Return the strategy object, where it is not the policy that names it."""
        return SecondViewOnly(self.parameters(model)) if self.blind else None


@dataclass(frozen=True)
class SecondViewOnly:
    """Shows the model the second view alone: what the contrast subtracts, made visible."""

    parameters: SteeringParameters
    id = "second_view_only"
    needs = Needs(logits=False)

    def prepare(self, context: SteeringContext) -> _Swap:
        """Return the plan that swaps the pictures."""
        return _Swap(
            second_views(
                context.turn,
                parameters=self.parameters,
                seed=context.seed,
                working_size=context.working_size,
                keeps_image_size=context.family.keeps_image_size,
            )
        )

    def record(self, context: SteeringContext) -> dict[str, Any]:
        """Return what the view is made by."""
        return self.parameters.model_dump(include={"sigma", "noise_order", "reference_view"})


@dataclass(frozen=True)
class _Swap:
    view: Turn

    def edit(self, turn: Turn) -> Turn:
        return self.view


def _paper(**values: Any) -> DecodingPolicy:
    return DecodingPolicy(recipe="paper", **values)


MAIN: Final = (
    Row("plain", "the model alone", DecodingPolicy(strategy="plain"), judged=False),
    Row("contrast", "the paper's contrast, no verdict", _paper(**_NO_PUSH), judged=False),
    Row("modulation", "the paper's push, no contrast", _paper(alpha=0.0)),
    Row(
        "modulation_scaled",
        "the same with lambda / (1 - alpha): the control for the contrast's scale",
        _paper(alpha=0.0, lambda_boost=1 / (1 - _ALPHA), lambda_supp=1 / (1 - _ALPHA)),
    ),
    Row("paper", "contrast and push as in the paper", _paper()),
    Row("guarded", "the project's default, with the model's own record", DecodingPolicy()),
    Row(
        "retry",
        "guarded, with a second answer where the first did not obey",
        DecodingPolicy(),
        follows="retry",
    ),
    Row(
        "replace",
        "guarded, with a fixed refusal in place of help that the verdict did not want",
        DecodingPolicy(),
        follows="replace",
    ),
    Row("reference", "as the authors' released code", DecodingPolicy(recipe="reference")),
    Row(
        "verdict_prompt",
        "the verdict as a sentence in the system message",
        DecodingPolicy(strategy="verdict_prompt"),
    ),
    Row(
        "block",
        "a fixed refusal if the judge says unsafe, else the model alone",
        DecodingPolicy(strategy="plain"),
        blocks=True,
    ),
    Row(
        "naive",
        "a fixed refusal if the judge says unsafe, refusals suppressed if it says safe",
        DecodingPolicy(alpha=0.0),
        blocks=True,
    ),
    Row(JUDGE_ALONE, "refuse if and only if the judge says unsafe", DecodingPolicy()),
)
ABLATIONS: Final = (
    Row(
        "guarded_contrast",
        "guarded without its push",
        DecodingPolicy(contrast_below=1.0, **_NO_PUSH),
        judged=False,
    ),
    Row("guarded_modulation", "guarded without its contrast", DecodingPolicy(alpha=0.0)),
    Row(
        "guarded_always",
        "guarded, contrasted however certain the judge is",
        DecodingPolicy(contrast_below=1.0),
    ),
    Row(
        "guarded_grey",
        "guarded against a grey picture, always",
        DecodingPolicy(reference_view="grey", contrast_below=1.0),
    ),
    Row(
        "guarded_noise",
        "guarded against the picture under noise of sigma 1, always",
        DecodingPolicy(reference_view="noise", sigma=1.0, contrast_below=1.0),
    ),
    Row(
        "guarded_strong",
        "guarded with lambda 10, the judge's certainty unused",
        DecodingPolicy(lambda_boost=10.0, lambda_supp=10.0, certainty_power=0.0),
    ),
    Row(
        "contrast_uncut",
        "guarded's second view, alpha 1, nothing cut or rescaled",
        DecodingPolicy(
            alpha=1.0, contrast_below=1.0, normalise="none", plausibility=0.0, **_NO_PUSH
        ),
        judged=False,
    ),
    Row(
        "contrast_cut",
        "the same with a cut at p >= 0.1 of the best",
        DecodingPolicy(
            alpha=1.0, contrast_below=1.0, normalise="none", plausibility=0.1, **_NO_PUSH
        ),
        judged=False,
    ),
    Row("view_paper", "the model sees the paper's noised view", _paper(), judged=False, blind=True),
    Row(
        "view_sigma_1",
        "the model sees the picture under noise of sigma 1",
        DecodingPolicy(sigma=1.0, reference_view="noise"),
        judged=False,
        blind=True,
    ),
    Row(
        "view_grey",
        "the model sees a grey picture",
        DecodingPolicy(reference_view="grey"),
        judged=False,
        blind=True,
    ),
)
OTHERS: Final = (
    Row(
        "adashield_s",
        "one static defence prompt, AdaShield-S in our own words",
        DecodingPolicy(strategy="adashield_s"),
        judged=False,
    ),
    Row(
        "vcd",
        "contrast with noise at every token, no verdict",
        DecodingPolicy(strategy="vcd"),
        judged=False,
    ),
    Row(
        "ecso",
        "answers again from a caption if the model finds harm in its answer, ECSO in our words",
        DecodingPolicy(strategy="ecso"),
        judged=False,
    ),
    Row(
        "ras",
        "first tokens drawn towards a refusal by the model's own risk, no verdict",
        DecodingPolicy(strategy="ras"),
        judged=False,
    ),
)
"""Methods of others. ``ras`` needs prototypes, so that they are in no set but their own."""
ROWS: Final[Mapping[str, Row]] = {row.name: row for row in (*MAIN, *ABLATIONS, *OTHERS)}


def rows_named(names: str, *, prototypes: Path | None = None) -> list[Row]:
    """Return rows by a comma-separated list of names.

    ``main``, ``ablations``, ``others`` and ``all``, which is the first two, expand.

    Args:
        names: Of rows or sets.
        prototypes: File that RAS steers by.

    Raises:
        GuardError: If there is no such row, or RAS has no prototypes.
    """
    sets = {
        "main": MAIN,
        "ablations": ABLATIONS,
        "others": OTHERS,
        "all": (*MAIN, *ABLATIONS),
    }
    chosen: dict[str, Row] = {}
    for name in names.split(","):
        if name not in sets and name not in ROWS:
            raise GuardError(f"There is no row {name!r}.", hint=likely(name, [*sets, *ROWS]))
        chosen |= {row.name: row for row in sets.get(name, (ROWS.get(name),)) if row}
    return [_with_prototypes(row, prototypes) for row in chosen.values()]


def _with_prototypes(row: Row, prototypes: Path | None) -> Row:
    if row.decoding.strategy != "ras":
        return row
    if prototypes is None:
        raise GuardError(
            f"The row {row.name!r} has no prototypes to steer by.",
            hint="Make them with `safecode-guard ras fit`, and name them by --prototypes.",
        )
    decoding = row.decoding.model_copy(update={"prototypes": str(prototypes)})
    return replace(row, decoding=decoding)
