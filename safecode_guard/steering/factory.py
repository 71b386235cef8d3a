"""From the policy's strategy name, or the user's own object, to a strategy."""

from __future__ import annotations

from safecode_guard.errors import PolicyError
from safecode_guard.policy import DecodingPolicy
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.protocol import Strategy
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.steering.safecode.strategy import SafeCoDe
from safecode_guard.steering.verdict_prompt import VerdictPrompt

BUILT_IN = ("plain", "safecode", "verdict_prompt")


def make_strategy(decoding: DecodingPolicy, own: Strategy | None = None) -> Strategy:
    """Return the strategy a policy asks for.

    Args:
        decoding: Its ``strategy`` names a built-in, or the id of ``own``.
        own: The user's strategy object; it wins over the default name.

    Raises:
        PolicyError: If the name is unknown, the own object is no strategy, or both contradict.
    """
    if own is not None:
        return _checked(own, decoding.strategy)
    match decoding.strategy:
        case "safecode":
            lexicon = RefusalLexicon.load(
                decoding.refusal_languages, extra=decoding.refusal_phrases
            )
            return SafeCoDe(lexicon=lexicon)
        case "verdict_prompt":
            return VerdictPrompt()
        case "plain":
            return Plain()
    raise PolicyError(
        f"Unknown decoding.strategy {decoding.strategy!r}.",
        hint=f"Use one of {list(BUILT_IN)}, or hand an object with this id to the guard.",
    )


def _checked(own: Strategy, name: str) -> Strategy:
    """Return the user's object if it is a strategy and the policy does not name another."""
    own_id = getattr(own, "id", None)
    if not isinstance(own_id, str) or not own_id or not callable(getattr(own, "prepare", None)):
        raise PolicyError(
            f"{type(own).__name__} is no strategy.",
            hint="It needs a non-empty `id` and a method `prepare(context)`.",
        )
    chosen = DecodingPolicy.model_fields["strategy"].default
    if name not in (own_id, chosen):
        raise PolicyError(
            f"decoding.strategy is {name!r}, but the strategy object's id is {own_id!r}.",
            hint="Name the object's id in the policy, or leave decoding.strategy out.",
        )
    return own
