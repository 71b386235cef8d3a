"""From the policy's strategy name, or the user's own object, to a strategy that can run."""

from __future__ import annotations

from pathlib import Path

from safecode_guard.errors import LogitsUnavailable, PolicyError, listed
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Abilities, Needs
from safecode_guard.policy import DecodingPolicy
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.steering.baselines.adashield import AdaShieldS
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.protocol import Strategy
from safecode_guard.steering.verdict_prompt import VerdictPrompt

BUILT_IN = ("plain", "safecode", "ras", "vcd", "verdict_prompt", "adashield_s", "ecso")


def make_strategy(
    decoding: DecodingPolicy,
    family: Family,
    own: Strategy | None = None,
    *,
    engine_id: str | None = None,
) -> Strategy:
    """Return the strategy a policy asks for.

    Args:
        decoding: Its ``strategy`` names a built-in, or the id of ``own``.
        family: The model's record, whose tuned values lie under the policy's.
        own: The user's strategy object; it stands in for a name that the policy left open.
        engine_id: The model's, for strategies that were fitted to one; None: it is not known yet.

    Raises:
        PolicyError: If the name is unknown, the own object is no strategy, or both contradict; if
            a strategy lacks its file, or that is another model's.
    """
    if own is not None:
        return _checked(own, decoding)
    match decoding.strategy:
        case "safecode":
            return _safecode(decoding, family)
        case "ras":
            return _ras(decoding, engine_id)
        case "vcd":
            return _vcd(decoding)
        case "ecso":
            return _ecso()
        case "adashield_s":
            return AdaShieldS()
        case "verdict_prompt":
            return VerdictPrompt()
        case "plain":
            return Plain()
    raise PolicyError(
        f"Unknown decoding.strategy {decoding.strategy!r}.",
        hint=f"Use one of {listed(BUILT_IN)}, or hand an object with this id to the guard.",
    )


def check_runs(strategy: Strategy, abilities: Abilities) -> None:
    """Refuse a strategy that an engine cannot run, before there is any turn.

    Raises:
        LogitsUnavailable: If it reads hidden states that the engine keeps to itself, or edits
            logits where the engine runs neither strategy objects nor this one by its record.
    """
    needs = strategy.needs
    if needs.hidden_layer is not None and not abilities.hidden_states:
        raise LogitsUnavailable(
            f"The strategy {strategy.id!r} reads hidden states (of layer {needs.hidden_layer}), "
            "which the model behind the guard does not give.",
            hint="Guard a ChatTransformers, or use a strategy without needs.hidden_layer.",
        )
    runs = abilities.logits or strategy.id in abilities.records
    if needs.logits and not runs:
        able = sorted({*abilities.records, "verdict_prompt", "plain"})
        raise LogitsUnavailable(
            f"The strategy {strategy.id!r} edits logits, which cannot be done on the model behind "
            "the guard.",
            hint=f"Guard a ChatTransformers, or set decoding.strategy to one of {able}.",
        )


def _safecode(decoding: DecodingPolicy, family: Family) -> Strategy:
    # behind a door: it loads torch, and the strategies that edit the prompt do not need it
    from safecode_guard.steering.safecode.parameters import resolve
    from safecode_guard.steering.safecode.refusals import RefusalLexicon
    from safecode_guard.steering.safecode.strategy import SafeCoDe

    lexicon = RefusalLexicon.load(decoding.refusal_languages, extra=decoding.refusal_phrases)
    return SafeCoDe(resolve(decoding, family.steering), lexicon=lexicon)


def _ras(decoding: DecodingPolicy, engine_id: str | None) -> Strategy:
    from safecode_guard.steering.ras.strategy import Ras

    if decoding.prototypes is None:
        raise PolicyError(
            "decoding.strategy is 'ras', but decoding.prototypes names no file.",
            hint="Make one with `safecode-guard ras fit`.",
        )
    prototypes = Prototypes.read(Path(decoding.prototypes))
    if engine_id is not None:
        prototypes.check(engine_id)
    return Ras(prototypes)


def _vcd(decoding: DecodingPolicy) -> Strategy:
    from safecode_guard.steering.baselines.vcd import Vcd

    return Vcd.of(decoding)


def _ecso() -> Strategy:
    from safecode_guard.steering.baselines.ecso import Ecso

    return Ecso()


def _checked(own: Strategy, decoding: DecodingPolicy) -> Strategy:
    """Return the user's object if it is a strategy and the policy does not name another."""
    if isinstance(own, type):
        raise PolicyError(
            f"{own.__name__} is a class.", hint=f"Hand over an object: {own.__name__}()."
        )
    if missing := _missing(own):
        raise PolicyError(
            f"{type(own).__name__} is no strategy: it lacks {', '.join(missing)}.",
            hint="It needs `id`, `needs = Needs()`, `prepare(context)` and `record(context)`.",
        )
    # a default that nobody wrote down contradicts nothing
    if "strategy" in decoding.model_fields_set and decoding.strategy != own.id:
        raise PolicyError(
            f"decoding.strategy is {decoding.strategy!r}, but the strategy object's id is "
            f"{own.id!r}.",
            hint="Name the object's id in the policy, or leave decoding.strategy out.",
        )
    return own


def _missing(own: object) -> list[str]:
    """Return the members that an object lacks to be a strategy."""
    name = getattr(own, "id", None)
    there = {
        "id": isinstance(name, str) and bool(name),
        "needs": isinstance(getattr(own, "needs", None), Needs),
        "prepare": callable(getattr(own, "prepare", None)),
        "record": callable(getattr(own, "record", None)),
    }
    return [member for member, found in there.items() if not found]
