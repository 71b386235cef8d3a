from __future__ import annotations

import pytest
import torch

from safecode_guard.errors import LogitsUnavailable, PolicyError
from safecode_guard.models.families import GENERIC, Family
from safecode_guard.models.protocol import Abilities, Needs
from safecode_guard.policy import DecodingPolicy, Policy
from safecode_guard.risk.prototypes import Fitted, Prototypes
from safecode_guard.steering.baselines.adashield import AdaShieldS
from safecode_guard.steering.baselines.ecso import Ecso
from safecode_guard.steering.baselines.vcd import Vcd
from safecode_guard.steering.factory import BUILT_IN, check_runs, make_strategy
from safecode_guard.steering.plain import Plain
from safecode_guard.steering.ras.strategy import Ras
from safecode_guard.steering.safecode.strategy import SafeCoDe
from safecode_guard.steering.verdict_prompt import VerdictPrompt


class Own:
    id = "own-1"
    needs = Needs()

    def prepare(self, context):
        return None

    def record(self, context):
        return {}


def lacking(**members):
    """Return an object that is a strategy but for some members; None takes one away."""
    given = {"id": "x", "needs": Needs(), "prepare": Own.prepare, "record": Own.record} | members
    return type("Half", (), {name: value for name, value in given.items() if value is not None})()


@pytest.fixture
def prototypes(tmp_path):
    file = tmp_path / "ras.safetensors"
    Prototypes(torch.zeros(3, 9), Fitted("chat@123", s0=0.5, k=9.0)).write(file)
    return str(file)


def test_every_built_in_is_made_and_carries_its_name(prototypes):
    kinds = {
        "plain": Plain,
        "safecode": SafeCoDe,
        "ras": Ras,
        "vcd": Vcd,
        "verdict_prompt": VerdictPrompt,
        "adashield_s": AdaShieldS,
        "ecso": Ecso,
    }
    assert set(kinds) == set(BUILT_IN)
    for name, kind in kinds.items():
        made = make_strategy(DecodingPolicy(strategy=name, prototypes=prototypes), GENERIC)
        assert isinstance(made, kind)
        assert made.id == name


def test_ras_wants_prototypes_of_the_model(prototypes):
    with pytest.raises(PolicyError, match=r"decoding\.prototypes"):
        make_strategy(DecodingPolicy(strategy="ras"), GENERIC)
    missing = DecodingPolicy(strategy="ras", prototypes=f"{prototypes}.none")
    with pytest.raises(PolicyError, match="cannot be read"):
        make_strategy(missing, GENERIC)
    decoding = DecodingPolicy(strategy="ras", prototypes=prototypes)
    with pytest.raises(PolicyError, match="'chat@123', not of 'chat@456'"):
        make_strategy(decoding, GENERIC, engine_id="chat@456")
    assert make_strategy(decoding, GENERIC, engine_id="moved@123").id == "ras"


def test_the_models_record_lies_under_the_policy():
    tuned = Family("tuned", steering={"alpha": 0.4, "sigma": 0.9})
    made = make_strategy(DecodingPolicy(sigma=0.5), tuned)
    assert (made.parameters.alpha, made.parameters.sigma) == (0.4, 0.5)
    paper = make_strategy(DecodingPolicy(recipe="paper"), tuned)
    assert paper.parameters.alpha == 0.3


def test_languages_and_phrases_come_from_the_policy():
    decoding = DecodingPolicy(refusal_languages=("de",), refusal_phrases=("Nö, lieber nicht",))
    lexicon = make_strategy(decoding, GENERIC).lexicon
    assert lexicon.is_refusal("Nö, lieber nicht.")
    assert lexicon.is_refusal("Es tut mir leid, aber das geht nicht.")
    assert not lexicon.is_refusal("I'm sorry, but I can't.")


def test_an_unknown_name_is_refused():
    with pytest.raises(PolicyError, match=r"'saefcode'.*'safecode'"):
        make_strategy(DecodingPolicy(strategy="saefcode"), GENERIC)


def test_an_unknown_language_is_refused():
    with pytest.raises(PolicyError, match="xx"):
        make_strategy(DecodingPolicy(refusal_languages=("xx",)), GENERIC)


@pytest.mark.parametrize(
    "decoding",
    [
        DecodingPolicy(),
        DecodingPolicy(strategy="own-1"),
        Policy().updated(decoding={"alpha": 0.1}).decoding,
        Policy.preset("strict", deadline_s=3).updated(name="mine").decoding,
    ],
)
def test_an_own_object_stands_in_for_a_name_that_was_left_open(decoding):
    own = Own()
    assert make_strategy(decoding, GENERIC, own) is own


@pytest.mark.parametrize("name", ["plain", "safecode"])
def test_an_own_object_must_not_contradict_the_policy(name):
    with pytest.raises(PolicyError, match=rf"'{name}'.*'own-1'"):
        make_strategy(DecodingPolicy(strategy=name), GENERIC, Own())


@pytest.mark.parametrize("member", ["id", "needs", "prepare", "record"])
@pytest.mark.parametrize("value", [None, 5])
def test_a_member_that_is_missing_or_wrong_is_named(member, value):
    with pytest.raises(PolicyError, match=f"no strategy: it lacks {member}\\."):
        make_strategy(DecodingPolicy(), GENERIC, lacking(**{member: value}))


def test_all_missing_members_are_named_at_once():
    with pytest.raises(PolicyError, match="lacks id, needs, prepare, record"):
        make_strategy(DecodingPolicy(), GENERIC, object())


def test_a_class_is_no_object():
    with pytest.raises(PolicyError, match=r"Own is a class.*Own\(\)"):
        make_strategy(DecodingPolicy(), GENERIC, Own)


EDITS_LOGITS = Abilities(logits=True)
RUNS_RECORDS = Abilities(records=frozenset({"safecode"}))


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("abilities", [EDITS_LOGITS, RUNS_RECORDS, Abilities()])
def test_only_edits_of_logits_need_an_engine_that_steers(name, abilities, prototypes):
    strategy = make_strategy(DecodingPolicy(strategy=name, prototypes=prototypes), GENERIC)
    runs = abilities.logits or name in abilities.records
    if runs or name in ("plain", "verdict_prompt", "adashield_s"):
        check_runs(strategy, abilities)
        return
    with pytest.raises(LogitsUnavailable, match=f"'{name}' edits logits.*'verdict_prompt'"):
        check_runs(strategy, abilities)


def test_an_own_strategy_runs_as_an_object_alone():
    check_runs(Own(), EDITS_LOGITS)
    with pytest.raises(LogitsUnavailable, match=r"'own-1'.*'safecode'"):
        check_runs(Own(), RUNS_RECORDS)


@pytest.mark.parametrize("needs", [Needs(hidden_layer=0), Needs(hidden_layer=-1, logits=False)])
def test_hidden_states_need_an_engine_that_gives_them(needs):
    strategy = lacking(needs=needs)
    check_runs(strategy, Abilities(logits=True, hidden_states=True))
    with pytest.raises(LogitsUnavailable, match="hidden states"):
        check_runs(strategy, EDITS_LOGITS)
