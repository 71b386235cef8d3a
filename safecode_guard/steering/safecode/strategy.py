"""SafeCoDe: contrastive decoding under a verdict (arXiv 2509.19212), by three recipes.

``paper``: the equations and nothing else (`PaperSteering`). ``guarded``: the project's default
(`GuardedSteering`). ``reference``: the authors' released code, quirk by quirk (`reference`).

The way of a turn is always context -> record -> steering, so what is written down about an answer
is what steered it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import LogitsStrategy, Needs
from safecode_guard.steering.protocol import SteeringContext
from safecode_guard.steering.safecode.contrast import check_contrast
from safecode_guard.steering.safecode.parameters import SteeringParameters
from safecode_guard.steering.safecode.recipes import steering_of
from safecode_guard.steering.safecode.record import SafeCoDeRecord
from safecode_guard.steering.safecode.reference import ReferenceQuirks
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.steering.safecode.tries import Tries
from safecode_guard.steering.safecode.views import second_views_in


class SafeCoDe:
    """The strategy ``safecode``: image contrast, and refusals pushed by the verdict.

    Every part can be switched off by a parameter: ``lambda_boost = lambda_supp = 0`` is the
    contrast alone, ``alpha = 0`` the modulation alone (one view, no second prefill), and
    ``alpha = 0`` with ``lambda / (1 - alpha)`` the control for the contrast's scale.

    Example:
        >>> from safecode_guard.policy import DecodingPolicy
        >>> from safecode_guard.steering.safecode.parameters import resolve
        >>> SafeCoDe(resolve(DecodingPolicy(alpha=0.0), {})).needs.views
        1
    """

    id = "safecode"

    def __init__(
        self,
        parameters: SteeringParameters,
        *,
        lexicon: RefusalLexicon | None = None,
        quirks: ReferenceQuirks | None = None,
    ) -> None:
        """Take the parameters, the lexicon (default: all languages), and the reference's quirks.

        Raises:
            PolicyError: If the parameters contradict each other.
        """
        self.parameters = parameters
        self.lexicon = lexicon or RefusalLexicon.load()
        self.quirks = quirks or ReferenceQuirks()
        self._tries = Tries()
        check_contrast(alpha=parameters.alpha, normalise=parameters.normalise)
        if parameters.recipe == "reference":
            self.quirks.check(parameters)

    @property
    def needs(self) -> Needs:
        """Two views unless alpha is 0."""
        return Needs(views=2 if self.parameters.alpha > 0 else 1)

    def prepare(self, context: SteeringContext) -> LogitsStrategy | None:
        """Return the steering of one turn; None if no step is guided.

        Raises:
            PolicyError: If refusals were to be suppressed without a verdict of safe, or no phrase
                of the lexicon can be written in the model's tokens.
        """
        record = self._record_of(context)
        if record is None:
            return None
        return steering_of(
            record,
            trie=self.trie(context) if record.lexicon else None,
            vocabulary=context.vocabulary,
            second=second_views_in(context, self.parameters) if record.alpha else None,
        )

    def record(self, context: SteeringContext) -> Mapping[str, Any]:
        """Return what the steering of one turn uses; see `SafeCoDeRecord`."""
        record = self._record_of(context)
        return record.to_json() if record else {}

    def trie(self, context: SteeringContext) -> RefusalTrie:
        """Return the trie of the phrases that steer a turn, in the model's tokens."""
        return self._tries.of(self._lexicon_of(context), context.vocabulary)

    def _lexicon_of(self, context: SteeringContext) -> RefusalLexicon:
        """Return the phrases of the request's language; recipe ``guarded`` alone goes by it."""
        if self.parameters.recipe != "guarded":
            return self.lexicon
        return self.lexicon.for_request(context.turn.query)

    def _record_of(self, context: SteeringContext) -> SafeCoDeRecord | None:
        if context.direction == "suppress" and context.label != "safe":
            raise PolicyError(
                f"Refusals are suppressed after a verdict of 'safe' only, not {context.label!r}.",
                hint="Steer with direction 'boost', or let the turn pass unsteered.",
            )
        if self.parameters.guided_steps == 0:
            return None
        return SafeCoDeRecord.of(self._values(context), pictures=bool(context.turn.images))

    def _values(self, context: SteeringContext) -> dict[str, Any]:
        """Return all values in force, used or not, by their names in the record."""
        parameters, direction = self.parameters, context.direction
        numbers = parameters.model_dump(
            exclude={
                "guided_steps",
                "lambda_boost",
                "lambda_supp",
                "certainty_power",
                "contrast_below",
            }
        )
        values = numbers | {
            "direction": direction,
            "steps": parameters.guided_steps,
            "push": push_of(context, parameters),
            "lexicon": self._lexicon_of(context).record(),
            "seed": context.seed,
            "quirks": (),
            "later_temperature": None,
        }
        if parameters.recipe == "reference":
            values |= self.quirks.changed(parameters, direction, context.family)
        return values if contrasts(context, parameters) else values | {"alpha": 0.0}


def contrasts(context: SteeringContext, parameters: SteeringParameters) -> bool:
    """Return whether a turn's second view is of use: always, or below a certainty of the verdict.

    Without a label of safe or unsafe nobody is certain of anything, and the turn is contrasted.
    """
    bound = parameters.contrast_below
    if bound is None or bound >= 1 or context.label not in ("safe", "unsafe"):
        return True
    return context.certainty < bound


def push_of(context: SteeringContext, parameters: SteeringParameters) -> float:
    """Return what is added to refusal tokens: +lambda_boost or -lambda_supp, scaled.

    The scale is certainty ** certainty_power, times the insistence of a second answer. A certainty
    of 0 silences the push only for an undecided judge; without a probability (a failed check, a
    judge that gives labels alone) the push is whole, so that a missing number never weakens a
    boost.
    """
    scale = math.pow(context.certainty, parameters.certainty_power)
    if context.certainty == 0 and context.label != "undecided":
        scale = 1.0
    scale *= context.insistence
    if context.direction == "boost":
        return parameters.lambda_boost * scale
    return -parameters.lambda_supp * scale
