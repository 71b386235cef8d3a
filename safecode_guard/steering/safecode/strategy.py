"""SafeCoDe: contrastive decoding under a verdict (arXiv 2509.19212), in three modes.

``paper``: the equations and nothing else (`PaperSteering`). ``guarded``: the project's default
(`GuardedSteering`). ``reference``: the authors' released code, quirk by quirk (`reference`).
"""

from __future__ import annotations

import math

from safecode_guard.errors import PolicyError
from safecode_guard.models.protocol import Vocabulary
from safecode_guard.steering.protocol import LogitsStrategy, SteeringContext
from safecode_guard.steering.safecode.contrast import check_contrast
from safecode_guard.steering.safecode.guided import GuardedSteering, PaperSteering
from safecode_guard.steering.safecode.reference import ReferenceQuirks, prepare_reference
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie


class SafeCoDe:
    """The strategy ``safecode``: image contrast, and refusals pushed by the verdict.

    Every part can be switched off by a parameter: ``lambda_boost = lambda_supp = 0`` is the
    contrast alone, ``alpha = 0`` the modulation alone (one view, no second prefill), and
    ``alpha = 0`` with ``lambda / (1 - alpha)`` the control for the contrast's scale.

    Example:
        >>> SafeCoDe(lexicon=RefusalLexicon.load(["en", "de"])).id
        'safecode'
    """

    id = "safecode"

    def __init__(
        self, *, lexicon: RefusalLexicon | None = None, quirks: ReferenceQuirks | None = None
    ) -> None:
        """Take the refusal lexicon (default: all languages) and the reference mode's quirks."""
        self.lexicon = lexicon or RefusalLexicon.load()
        self.quirks = quirks or ReferenceQuirks()
        self._tries: dict[str, RefusalTrie] = {}

    def prepare(self, context: SteeringContext) -> LogitsStrategy | None:
        """Return the steering of one turn; None if no step is guided.

        Raises:
            PolicyError: If the parameters contradict each other, or refusals were to be
                suppressed without a verdict of safe.
        """
        parameters = context.parameters
        check_contrast(alpha=parameters.alpha, normalise=parameters.normalise)
        if context.direction == "suppress" and context.label != "safe":
            raise PolicyError(
                f"Refusals are suppressed after a verdict of 'safe' only, not {context.label!r}.",
                hint="Steer with direction 'boost', or let the turn pass unsteered.",
            )
        if parameters.guided_steps == 0:
            return None
        trie, size = self.trie(context.vocabulary), context.vocabulary.size
        match parameters.mode:
            case "paper":
                refusals = trie.tokens(key_words_only=True)
                return PaperSteering(parameters, push_of(context), size, refusals)
            case "reference":
                return prepare_reference(
                    context, lexicon=self.lexicon, trie=trie, quirks=self.quirks
                )
            case "guarded":
                return GuardedSteering(parameters, push_of(context), size, trie)

    def trie(self, vocabulary: Vocabulary) -> RefusalTrie:
        """Return the refusal trie of a vocabulary, built at its first use."""
        if vocabulary.id not in self._tries:
            self._tries[vocabulary.id] = RefusalTrie.build(self.lexicon, vocabulary)
        return self._tries[vocabulary.id]


def push_of(context: SteeringContext) -> float:
    """Return what is added to refusal tokens: +lambda_boost or -lambda_supp, scaled.

    The scale is certainty ** certainty_power. A certainty of 0 silences the push only for an
    undecided judge; without a probability (a failed check, a judge that gives labels alone) the
    push is whole, so that a missing number never weakens a boost.
    """
    parameters = context.parameters
    scale = math.pow(context.certainty, parameters.certainty_power)
    if context.certainty == 0 and context.label != "undecided":
        scale = 1.0
    if context.direction == "boost":
        return parameters.lambda_boost * scale
    return -parameters.lambda_supp * scale
