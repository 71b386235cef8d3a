"""What every strategy promises: the protocols of `safecode_guard.steering.protocol`.

Run over every built-in, every recipe, and two strategies as a user would write them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safecode_guard.models.families import GENERIC
from safecode_guard.models.protocol import Abilities, LogitsStrategy, Needs
from safecode_guard.policy import DecodingPolicy
from safecode_guard.risk.prototypes import Fitted, Prototypes
from safecode_guard.steering.factory import BUILT_IN, check_runs, make_strategy
from safecode_guard.steering.protocol import Probed, SteeringContext, Strategy, TurnPlan
from safecode_guard.steering.ras.strategy import Ras
from safecode_guard.steering.restore import RESTORABLE, restore
from safecode_guard.steering.safecode.guided import GuardedSteering
from safecode_guard.steering.safecode.leads import MOST_LEAD_TOKENS
from safecode_guard.steering.safecode.reference import ReferenceQuirks
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon
from safecode_guard.steering.safecode.tries import Tries
from safecode_guard.steering.trace import Traced
from tests.unit.steering.contexts import PICTURE, WORDS, context, safecode, step
from tests.unit.steering.vocabularies import byte_level, sentence_piece

VOCABULARY = byte_level()
LABELS = ("safe", "unsafe", "undecided", None)
WIDTH = 6
TRIES = Tries()
LONG = 64


# -- two strategies of a user's own --------------------------------------------------------------


@dataclass(frozen=True)
class Pull:
    """Raises one token by how far the hidden state lies along a direction."""

    token: int
    direction: torch.Tensor
    steps: int = 2
    second: None = None
    max_tokens: int | None = None

    def done(self, so_far):
        return len(so_far) >= self.steps

    def adjust(self, step):
        along = (step.hidden[0] @ self.direction).clamp(min=0)
        return step.logits[0] + along * (step.ids == self.token)


class ReadsHidden:
    """Looks at the state behind each of the first tokens, whatever the judge has said."""

    id = "reads-hidden-1"
    needs = Needs(hidden_layer=-1)

    def prepare(self, context):
        if context.direction == "suppress":
            return None
        token = context.vocabulary.encode("I'm sorry")[0]
        return Pull(token, torch.linspace(-1, 1, WIDTH))

    def record(self, context):
        return {} if context.direction == "suppress" else {"layer": -1, "steps": 2}


@dataclass(frozen=True)
class Reminder:
    """Puts what the model said of the picture into the system message."""

    text: str

    def edit(self, turn):
        return turn.with_system(self.text)


class Probes:
    """Asks the model for a danger, and reminds it of the one that it names."""

    id = "probes-1"
    needs = Needs(logits=False)

    def prepare(self, context):
        said = self._said(context)
        return None if said == "none" else Reminder(f"Mind this danger: {said}.")

    def record(self, context):
        said = self._said(context)
        return {} if said == "none" else {"danger": said}

    def _said(self, context):
        (answer,) = context.probe([context.turn.ask("Which danger is shown?")], max_tokens=4)
        return answer.text


def answering(text: str) -> Callable[..., list[Probed]]:
    """Return a probe that gives every turn the same answer."""

    def probe(turns, *, max_tokens=32, hidden_layer=None, first_logits=0):
        logits = torch.ones(first_logits, VOCABULARY.size) if first_logits else None
        return [Probed(text, logits=logits) for _ in turns]

    return probe


def prototypes() -> Prototypes:
    """Return prototypes as wide as the vocabulary."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((3, VOCABULARY.size), generator=generator)
    return Prototypes(logits, Fitted("m@1", s0=0.5, k=9.0, cap=30.0))


# -- what the suite runs over --------------------------------------------------------------------

OWN_LEXICON = RefusalLexicon((Phrase("I must not", "I"), Phrase("Never ever"), Phrase("我不能")))
SAFECODE: dict[str, Strategy] = {
    **{name: safecode(recipe=name) for name in ("paper", "guarded", "reference")},
    "modulation": safecode(alpha=0),
    "contrast": safecode(lambda_boost=0, lambda_supp=0),
    "neutral": safecode(alpha=0, lambda_boost=0, lambda_supp=0, plausibility=0),
    "vcd": safecode(normalise="vcd", plausibility=0.03),
    "grey": safecode(reference_view="grey", guided_steps=3),
    "scaled": safecode(certainty_power=2.0, root_weight=1.0, top_k=300),
    "no steps": safecode(guided_steps=0),
    "own phrases": safecode(lexicon=RefusalLexicon.load(["de"], extra=["Nay, |never"])),
    "own lexicon": safecode(lexicon=OWN_LEXICON),
    "unforced": safecode(recipe="reference", quirks=ReferenceQuirks(force_phrase=False)),
    "ruled out": safecode(recipe="reference", lambda_supp=2.0, alpha=0),
    "few quirks": safecode(
        recipe="reference",
        quirks=ReferenceQuirks(
            prefer_apologies=False,
            scale_probabilities=False,
            whole_vocabulary=False,
            greedy_first_token=False,
            later_temperature=None,
            end_early=False,
            length_caps=False,
        ),
    ),
}
STRATEGIES: dict[str, Strategy] = SAFECODE | {
    "plain": make_strategy(DecodingPolicy(strategy="plain"), GENERIC),
    "verdict_prompt": make_strategy(DecodingPolicy(strategy="verdict_prompt"), GENERIC),
    "adashield_s": make_strategy(DecodingPolicy(strategy="adashield_s"), GENERIC),
    "vcd, every token": make_strategy(DecodingPolicy(strategy="vcd"), GENERIC),
    "ras": Ras(prototypes()),
    "ecso": make_strategy(DecodingPolicy(strategy="ecso"), GENERIC),
    "reads hidden": ReadsHidden(),
    "probes": Probes(),
}
STEERING = [*SAFECODE.keys() - {"no steps"}, "reads hidden", "ras", "ecso"]
"""Those that edit the logits of first tokens, in some turns at least."""
strategies = pytest.mark.parametrize("name", STRATEGIES)
steering = pytest.mark.parametrize("name", sorted(STEERING))


@dataclass
class Case:
    """A strategy before one turn."""

    strategy: Strategy
    context: SteeringContext

    @property
    def prepared(self) -> Any:
        return self.strategy.prepare(self.context)

    @property
    def record(self) -> dict[str, Any]:
        """The record of the turn, after it has been sent somewhere as JSON."""
        return json.loads(json.dumps(self.strategy.record(self.context), allow_nan=False))


def cases(name: str) -> Iterator[Case]:
    """Yield a strategy before turns of every kind."""
    for label, certainty in itertools.product(LABELS, (0.0, 0.6)):
        seen = context(VOCABULARY, label, certainty=certainty, probe=answering("a cliff"))
        yield Case(STRATEGIES[name], seen)
    for label in ("safe", "unsafe"):
        seen = context(VOCABULARY, label, turn=WORDS, probe=answering("none"))
        yield Case(STRATEGIES[name], seen)


def steered(name: str) -> list[Case]:
    """Return the cases in which logits are edited."""
    found = [case for case in cases(name) if isinstance(case.prepared, LogitsStrategy)]
    assert len(found) >= 5
    return found


def seen(index: int, so_far: list[int], *, views: int = 2, ids: Any = None) -> Any:
    """Return a step with random logits and hidden states."""
    generator = torch.Generator().manual_seed(index)
    logits = torch.randn((2, VOCABULARY.size), generator=generator)[:views] * 3
    hidden = torch.randn((2, WIDTH), generator=generator)[:views]
    if ids is not None:
        logits = logits[:, ids]
    return step(logits, so_far, ids=ids, hidden=hidden)


def answer(made: LogitsStrategy) -> tuple[list[int], list[torch.Tensor]]:
    """Return the tokens of a greedy answer while it is steered, and the logits of each.

    Of an answer that is steered to its end, the beginning.
    """
    tokens: list[int] = []
    steered = []
    while not made.done(tokens) and len(tokens) < LONG:
        steered.append(made.adjust(seen(len(tokens), tokens)))
        tokens.append(int(steered[-1].argmax()))
    return tokens, steered


def most_tokens(made: LogitsStrategy) -> int:
    """Return how many tokens may be steered: T, and what recipe guarded has beyond it."""
    if isinstance(made, GuardedSteering):
        return MOST_LEAD_TOKENS + max(made.steps, made.record.most_steps)
    return made.steps


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    """Return whether logits are equal to the bit."""
    return [t.numpy().tobytes() for t in one] == [t.numpy().tobytes() for t in other]


# -- strategies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_ins_carry_their_names(name, tmp_path):
    file = tmp_path / "ras.safetensors"
    prototypes().write(file)
    decoding = DecodingPolicy(strategy=name, prototypes=str(file))
    assert make_strategy(decoding, GENERIC).id == name


@strategies
def test_needs_are_known_before_any_verdict(name):
    strategy = STRATEGIES[name]
    assert isinstance(strategy.needs, Needs)
    assert strategy.needs == strategy.needs
    assert make_strategy(DecodingPolicy(), GENERIC, strategy) is strategy
    check_runs(strategy, Abilities(logits=True, hidden_states=True))


@strategies
def test_needs_are_an_upper_bound_of_every_turn(name):
    for case in cases(name):
        made, needs = case.prepared, case.strategy.needs
        if isinstance(made, LogitsStrategy):
            assert needs.logits
            assert made.second is None or needs.views == 2


@strategies
def test_a_turn_is_edited_or_its_logits_or_neither(name):
    for case in cases(name):
        made = case.prepared
        assert made is None or isinstance(made, TurnPlan) != isinstance(made, LogitsStrategy)


@strategies
def test_what_is_left_alone_has_an_empty_record(name):
    for case in cases(name):
        assert (case.prepared is None) == (case.record == {})


@strategies
def test_the_record_is_the_contexts_alone(name):
    for case in cases(name):
        first = case.record
        made = case.prepared
        if isinstance(made, LogitsStrategy):
            answer(made)
        assert case.record == first


# -- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["verdict_prompt", "adashield_s", "probes"])
@pytest.mark.parametrize("label", LABELS)
def test_a_turn_plan_keeps_request_and_pictures(name, label):
    seen = context(VOCABULARY, label, probe=answering("a cliff"))
    plan = STRATEGIES[name].prepare(seen)
    edited = plan.edit(PICTURE)
    assert (edited.query, edited.images) == (PICTURE.query, PICTURE.images)
    assert edited != PICTURE
    assert plan.edit(PICTURE) == edited


def test_a_probe_decides():
    say = {said: context(VOCABULARY, probe=answering(said)) for said in ("none", "a cliff")}
    assert Probes().prepare(say["none"]) is None
    edited = Probes().prepare(say["a cliff"]).edit(PICTURE)
    assert edited.messages[0].text == "Mind this danger: a cliff."


# -- edits of logits -----------------------------------------------------------------------------


@steering
def test_its_numbers_are_in_range(name):
    for case in steered(name):
        made = case.prepared
        assert made.steps >= 1
        assert made.max_tokens is None or made.max_tokens > 0
        assert not made.done([])


@steering
def test_a_step_returns_logits_that_leave_something_to_choose(name):
    for case in steered(name):
        made = case.prepared
        tokens: list[int] = []
        while not made.done(tokens):
            given = seen(len(tokens), tokens)
            parts = (given.logits, given.ids, given.so_far, given.hidden)
            before = [part.clone() for part in parts]
            got = made.adjust(given)
            assert got.shape == (VOCABULARY.size,)
            assert got.dtype == torch.float32
            assert got.isfinite().any()
            assert not got.isnan().any()
            assert all(torch.equal(part, old) for part, old in zip(parts, before, strict=True))
            tokens.append(int(got.argmax()))
        assert 1 <= len(tokens) <= most_tokens(made)


@steering
def test_a_step_can_be_asked_twice(name):
    for case in steered(name):
        made = case.prepared
        tokens: list[int] = []
        while not made.done(tokens):
            got = made.adjust(seen(len(tokens), tokens))
            assert torch.equal(made.adjust(seen(len(tokens), tokens)), got)
            tokens.append(int(got.argmax()))


@steering
def test_the_order_of_candidates_does_not_matter(name):
    for case in steered(name):
        shuffled = torch.randperm(VOCABULARY.size, generator=torch.Generator().manual_seed(3))
        expected = case.prepared.adjust(seen(0, []))[shuffled]
        got = case.prepared.adjust(seen(0, [], ids=shuffled))
        torch.testing.assert_close(got, expected)


@steering
def test_one_view_is_enough_where_there_is_no_second(name):
    for case in steered(name):
        made, other = case.prepared, case.prepared
        got = made.adjust(seen(0, [], views=1))
        assert got.isfinite().any()
        if made.second is None:
            assert torch.equal(other.adjust(seen(0, [])), got)


@steering
def test_two_preparations_share_no_state(name):
    for case in steered(name):
        one, other = case.prepared, case.prepared
        one.adjust(seen(99, []))
        assert equal(answer(other)[1], answer(case.prepared)[1])


@steering
def test_a_trace_changes_nothing(name):
    for case in steered(name):
        traced = Traced(case.prepared, VOCABULARY)
        assert isinstance(traced, LogitsStrategy)
        tokens, logits = answer(traced)
        assert equal(logits, answer(case.prepared)[1])
        assert [record.chosen for record in traced.steps_traced(tokens)] == tokens


@pytest.mark.parametrize("vocabulary", [byte_level, sentence_piece])
@pytest.mark.parametrize("name", ["guarded", "reference", "few quirks", "reads hidden"])
@pytest.mark.parametrize("label", ["safe", "unsafe"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_done_stays_done(name, label, vocabulary, data):
    known = vocabulary()
    made = STRATEGIES[name].prepare(context(known, label))
    if made is None:
        return
    some = known.encode('The dog. "It I see as\N{SNOWMAN}')
    token = st.one_of(st.integers(0, known.size - 1), st.sampled_from(some))
    tokens = data.draw(st.lists(token, max_size=24))
    over = [made.done(tokens[:n]) for n in range(len(tokens) + 1)]
    assert over == sorted(over)
    assert all(over[most_tokens(made) :])


# -- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(STEERING) & SAFECODE.keys()))
def test_a_record_restores_the_steering_to_the_bit(name):
    for case in steered(name):
        made, strategy = case.prepared, case.strategy
        assert strategy.id in RESTORABLE
        again = restore(strategy.id, case.record, vocabulary=VOCABULARY, tries=TRIES)
        assert (again.steps, again.max_tokens) == (made.steps, made.max_tokens)
        tokens, logits = answer(made)
        restored_tokens, restored_logits = answer(again)
        assert restored_tokens == tokens
        assert equal(restored_logits, logits)


@pytest.mark.parametrize("name", ["paper", "guarded", "reference"])
@settings(deadline=None, max_examples=30)
@given(
    label=st.sampled_from(LABELS),
    certainty=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    family=st.sampled_from(["llava_next", "qwen2_5_vl", "internvl"]),
    numbers=st.fixed_dictionaries(
        {
            "alpha": st.floats(0, 0.9),
            "lambda_boost": st.floats(0, 9),
            "lambda_supp": st.floats(0, 2),
            "plausibility": st.floats(0, 1),
            "root_weight": st.floats(0, 1),
            "top_k": st.integers(1, 400),
        }
    ),
)
def test_any_numbers_survive_the_record(name, label, certainty, seed, family, numbers):
    strategy = safecode(recipe=name, **numbers)
    given = context(VOCABULARY, label, certainty=certainty, family=family, seed=seed)
    case = Case(strategy, given)
    again = restore("safecode", case.record, vocabulary=VOCABULARY, tries=TRIES)
    made = case.prepared
    assert again.max_tokens == made.max_tokens
    assert equal(answer(again)[1], answer(made)[1])


def test_equal_records_steer_equally_wherever_they_come_from():
    """Strategies and contexts that differ in nothing that is used have one record."""
    sure = Case(safecode(recipe="paper", lambda_supp=9.0), context(VOCABULARY, "unsafe"))
    failed = Case(safecode(recipe="paper"), context(VOCABULARY, None, certainty=0.3))
    assert sure.record == failed.record
    assert equal(answer(sure.prepared)[1], answer(failed.prepared)[1])


def test_what_steers_differently_has_another_record():
    records = [
        json.dumps(safecode(**values).record(context(VOCABULARY, label)), sort_keys=True)
        for label in ("safe", "unsafe")
        for values in (
            {},
            {"recipe": "paper"},
            {"recipe": "reference"},
            {"alpha": 0.2},
            {"normalise": "vcd"},
            {"reference_view": "grey"},
            {"sigma": 0.5},
            {"noise_order": "before_resize"},
            {"lambda_boost": 2, "lambda_supp": 2},
            {"plausibility": 0.2},
            {"top_k": 5},
            {"guided_steps": 3},
            {"lexicon": OWN_LEXICON},
        )
    ]
    assert len(set(records)) == len(records)
