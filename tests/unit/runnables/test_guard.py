"""The guard itself: what it is made of, what it answers, and how it fails."""

import time
import warnings

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from safecode_guard.errors import (
    JudgeError,
    LogitsUnavailable,
    PolicyError,
    TemplateError,
    TurnBlocked,
    TurnTimeout,
    UnsupportedGeneration,
)
from safecode_guard.judges.protocol import JudgeAbilities
from safecode_guard.policy import Policy
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.settings import SafeCoDeSettings, UnreadEnvironmentWarning
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.verdict import Judgement, Verdict
from tests.messages import QUERY, ask, image_block, text_block
from tests.unit.runnables.guards import HELP, LONG, REFUSAL, Slow, guarded, model

BLOCKING = Policy(actions={"unsafe": "block"})

# -- steering --------------------------------------------------------------------------------


def test_an_unsafe_verdict_turns_help_into_a_refusal():
    plain = model({HELP: 0.3, REFUSAL: 0.0})
    assert plain.invoke(ask()).text == HELP
    assert guarded(0.95, model=plain).invoke(ask()).text == REFUSAL


def test_a_safe_verdict_turns_a_refusal_into_help():
    plain = model({HELP: 0.0, REFUSAL: 0.3})
    assert plain.invoke(ask()).text == REFUSAL
    assert guarded(0.05, model=plain).invoke(ask()).text == HELP


def test_undecided_is_left_to_plain_decoding():
    reply = guarded(0.5, model=model({HELP: 0.0, REFUSAL: 0.3})).invoke(ask())
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.decoding) == ("undecided", "pass", None)
    assert reply.text == REFUSAL


def test_the_verdict_records_how_the_answer_was_steered():
    decoding = Verdict.from_message(guarded(0.9).invoke(ask())).decoding
    assert (decoding.strategy, decoding.seed, decoding.steps) == ("safecode", 0, 5)
    assert decoding.parameters["recipe"] == "guarded"
    assert Verdict.from_message(guarded(0.9).bind(seed=7).invoke(ask())).decoding.seed == 7


def test_the_same_model_judges_by_default():
    guard = SafeCoDeGuard(model=model({HELP: 0.3, REFUSAL: 0.0}, p_unsafe=0.9))
    verdict = Verdict.from_message(guard.invoke(ask()))
    assert verdict.label == "unsafe"
    assert verdict.parse_status == "logits"
    assert verdict.label_mass == pytest.approx(0.99, abs=1e-3)


def test_same_model_verdict_and_answer_share_one_prefill():
    """The pictures are prefilled once, and once more as second views for the guided steps."""
    inner = model(p_unsafe=0.9)
    SafeCoDeGuard(model=inner).invoke(ask())
    kinds = [(kind, rows) for kind, rows, _ in inner.engine.calls if kind == "prefill"]
    assert kinds == [("prefill", 1), ("prefill", 1)]
    alone = model(p_unsafe=0.9)
    SafeCoDeGuard(model=alone, policy={"decoding": {"alpha": 0.0}}).invoke(ask())
    assert [kind for kind, _, _ in alone.engine.calls].count("prefill") == 1


# -- judgements ------------------------------------------------------------------------------


def test_a_cached_judgement_is_marked_and_asks_nobody():
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    first, second = (Verdict.from_message(guard.invoke(ask())) for _ in range(2))
    assert [first.judge.cached, second.judge.cached] == [False, True]
    assert first.id != second.id
    assert len(judge.requests) == 1
    guard.invoke(ask(QUERY + " Please."))
    assert len(judge.requests) == 2


def test_what_the_judge_was_not_shown_makes_no_new_judgement():
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    for answer in ("A park.", "Trees."):
        guard.invoke([HumanMessage("What is there to see here?"), AIMessage(answer), *ask()])
    assert len(judge.requests) == 1
    guard.invoke([HumanMessage("Is there anything to see?"), AIMessage("A park."), *ask()])
    assert len(judge.requests) == 2


@pytest.mark.parametrize(
    ("messages", "questions"),
    [
        ([SystemMessage("You are a stunt coach."), *ask()], 1),
        (ask(QUERY, "blue"), 1),
        (ask(QUERY, "red", "blue"), 2),  # both together, and the new one by itself
        ([*ask("Take me there."), AIMessage("Shall I?"), HumanMessage("Yes, please")], 1),
    ],
    ids=["task", "picture", "pictures", "confirmed request"],
)
def test_what_the_judge_is_shown_makes_a_new_judgement(messages, questions):
    judge = ScriptedJudge(0.9)
    guard = guarded(judge=judge)
    guard.invoke(ask())
    guard.invoke(messages)
    assert len(judge.requests) == 1 + questions


def test_an_image_in_history_makes_a_follow_up_an_image_turn():
    judge = ScriptedJudge(0.9)
    history = [*ask("What is this?"), AIMessage("A cliff."), HumanMessage("How do I run here?")]
    verdict = Verdict.from_message(guarded(judge=judge).invoke(history))
    assert verdict.label == "unsafe"
    assert len(judge.requests[0].scene.images) == 1
    assert verdict.decided_by == (0,)


def test_an_image_from_a_tool_is_judged():
    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    shot = ToolMessage([image_block()], tool_call_id="1")
    verdict = Verdict.from_message(guarded(0.9).invoke([HumanMessage("Look."), call, shot]))
    assert verdict.images[0].message_index == 2


def test_a_text_turn_passes_unjudged_unless_the_policy_says_otherwise():
    judge = ScriptedJudge(0.9)
    reply = guarded(judge=judge).invoke("Hello")
    assert Verdict.from_message(reply) is None
    assert "safecode" not in reply.response_metadata
    assert judge.requests == []
    policy = Policy(stages={"input": {"when": "always"}})
    assert Verdict.from_message(guarded(judge=judge, policy=policy).invoke("Hello"))


# -- failing closed --------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [JudgeError("down"), RuntimeError("boom"), "nonsense"])
@pytest.mark.parametrize(("preset", "action"), [("balanced", "review"), ("strict", "block")])
def test_a_failed_judge_never_passes(failure, preset, action):
    class Broken(ScriptedJudge):
        def judge(self, request):
            if isinstance(failure, Exception):
                raise failure
            return failure

    reply = guarded(judge=Broken(), policy=Policy.preset(preset)).invoke(ask())
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.degraded) == (None, action, True)
    assert verdict.error
    assert HELP not in reply.text


def test_a_reply_that_cannot_be_read_is_a_failed_check_and_not_undecided():
    unread = Judgement(judge_id="scripted", prompt_version="1", parse_status="malformed")
    verdict = Verdict.from_message(guarded(unread).invoke(ask()))
    assert (verdict.label, verdict.action, verdict.degraded) == (None, "review", True)
    assert verdict.parse_status == "malformed"


def test_a_failed_judge_can_steer_towards_refusal():
    inner = model({HELP: 0.3, REFUSAL: 0.0})
    guard = guarded(JudgeError("down"), model=inner, policy=Policy.preset("permissive"))
    assert guard.invoke(ask()).text == REFUSAL


def test_a_late_judge_fails_within_its_timeout():
    judge = ScriptedJudge(lambda request: time.sleep(5) or 0.1)
    policy = Policy(judge={"kind": "custom", "id": "scripted", "timeout_s": 0.1})
    started = time.monotonic()
    verdict = Verdict.from_message(guarded(judge=judge, policy=policy).invoke(ask()))
    assert verdict.action == "review"
    assert "deadline" in verdict.error
    assert time.monotonic() - started < 2


def test_a_question_that_cannot_be_asked_is_a_failed_check():
    class Picky(ScriptedVLM):
        def encode(self, turns, *, tools=(), **options):
            if any("safe or unsafe" in turn.messages[-1].text for turn in turns):
                raise TemplateError("no questions", hint="none")
            return super().encode(turns, tools=tools, **options)

    inner = ChatTransformers.from_engine(Picky(HELP), temperature=0)
    verdict = Verdict.from_message(SafeCoDeGuard(model=inner).invoke(ask()))
    assert (verdict.action, verdict.degraded) == ("review", True)
    assert "the check failed" in verdict.error


def test_media_that_cannot_be_judged_blocks_the_turn():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    inner = model()
    reply = guarded(model=inner).invoke([HumanMessage([image_block(), audio, text_block(QUERY)])])
    verdict = Verdict.from_message(reply)
    assert (verdict.label, verdict.action, verdict.degraded) == (None, "block", True)
    assert [skipped.kind for skipped in verdict.media_skipped] == ["audio"]
    assert inner.engine.calls == []


def test_a_blocked_turn_generates_nothing():
    inner = model()
    reply = guarded(0.99, model=inner, policy=BLOCKING).invoke(ask())
    assert reply.text == BLOCKING.refusal_text
    assert reply.response_metadata["finish_reason"] == "content_filter"
    assert inner.engine.calls == []


def test_raise_on_block():
    policy = Policy(actions={"unsafe": "block"}, on_block="raise")
    with pytest.raises(TurnBlocked) as caught:
        guarded(0.99, policy=policy).invoke(ask())
    assert caught.value.verdict.action == "block"


# -- output rail -----------------------------------------------------------------------------


def railed(request) -> float:
    return 0.95 if request.stage == "output" and "edge" in request.answer else 0.3


def rail(when: str) -> Policy:
    return Policy(stages={"output": {"when": when}})


def test_the_output_rail_withholds_an_unsafe_answer():
    policy = rail("always")
    reply = guarded(railed, policy=policy).invoke(ask(), safecode_trace=True)
    stages = [(v.stage, v.action) for v in Verdict.all_from_message(reply)]
    assert stages == [("input", "guide"), ("output", "block")]
    assert reply.text == policy.refusal_text
    assert HELP not in str(reply)
    assert "safecode_trace" not in reply.response_metadata
    assert reply.usage_metadata["output_tokens"] == 0


def test_the_output_rail_buffers_the_stream():
    chunks = list(guarded(railed, policy=rail("always")).stream(ask()))
    assert HELP not in "".join(chunk.text for chunk in chunks)
    safe = list(guarded(0.1, policy=rail("always")).stream(ask()))
    assert [chunk.text for chunk in safe if chunk.text] == [HELP]
    stages = [v.stage for chunk in safe for v in Verdict.all_from_message(chunk)]
    assert stages == ["input", "output"]


def test_the_output_rail_judges_only_where_it_applies():
    judge = ScriptedJudge(0.1)
    guarded(judge=judge, policy=rail("unsafe")).invoke(ask())
    assert [r.stage for r in judge.requests] == ["input"]
    judge = ScriptedJudge(0.9)
    guarded(judge=judge, policy=rail("unsafe")).invoke(ask())
    assert [r.stage for r in judge.requests] == ["input", "output"]


def test_the_strict_preset_judges_answers_to_what_was_not_safe():
    judge = ScriptedJudge(0.9)
    guarded(judge=judge, policy="strict").invoke(ask())
    assert [r.stage for r in judge.requests] == ["input", "output"]


# -- making one ------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["strict", {"actions": {"judge_error": "block"}}])
def test_a_policy_may_be_a_name_or_plain_data(policy):
    guard = guarded(policy=policy)
    assert isinstance(guard.policy, Policy)
    assert guard.policy.actions.judge_error == "block"


@pytest.mark.parametrize("policy", ["strictest", {"actoins": {}}, {}, 7])
def test_a_policy_that_is_none_is_refused(policy):
    with pytest.raises(PolicyError):
        SafeCoDeGuard(model=model(), policy=policy)


def test_a_model_may_be_a_name_and_loads_nothing_yet(tmp_path):
    tiny = SafeCoDeGuard(model="tiny").model
    assert isinstance(tiny, ChatTransformers)
    assert tiny.local_files_only
    named = SafeCoDeGuard(model=tmp_path).model
    assert isinstance(named, ChatTransformers)
    assert named.model_name == str(tmp_path)
    assert SafeCoDeGuard(model="some/model").model.model_name == "some/model"


@pytest.mark.parametrize("name", ["model", "judge", "strategy", "policy"])
def test_what_a_guard_is_made_of_cannot_be_changed(name):
    guard = guarded()
    before = getattr(guard, name)
    with pytest.raises(PolicyError, match=f"guard's {name} cannot be changed"):
        setattr(guard, name, before)
    assert getattr(guard, name) is before


def test_a_model_without_logits_is_refused_unless_it_is_only_judged():
    inner = FakeListChatModel(responses=["Hello"])
    with pytest.raises(LogitsUnavailable, match="judge_only"):
        SafeCoDeGuard(model=inner, judge=ScriptedJudge())
    assert issubclass(LogitsUnavailable, TypeError)
    guard = SafeCoDeGuard(model=inner, judge=ScriptedJudge(), policy=Policy(mode="judge_only"))
    assert guard.invoke(ask()).text == "Hello"


def test_a_model_that_cannot_judge_itself_needs_a_judge():
    with pytest.raises(PolicyError, match="same_model"):
        SafeCoDeGuard(model=FakeListChatModel(responses=["x"]), policy={"mode": "judge_only"})


def test_category_actions_need_a_judge_that_names_categories():
    policy = Policy(category_actions={"situational": "block"})
    with pytest.raises(PolicyError, match="categories"):
        SafeCoDeGuard(model=model(), policy=policy)
    with pytest.raises(PolicyError, match="categories"):
        guarded(policy=policy)
    naming = ScriptedJudge(abilities=JudgeAbilities(categories=True))
    SafeCoDeGuard(model=model(), judge=naming, policy=policy)


def test_an_object_that_is_no_strategy_is_refused_at_once():
    with pytest.raises(PolicyError, match="no strategy"):
        SafeCoDeGuard(model=model(), strategy=object())


def test_a_plain_constructor_says_that_it_reads_no_environment(monkeypatch):
    monkeypatch.setenv("SAFECODE_ACTIONS__UNSAFE", "block")
    with pytest.warns(UnreadEnvironmentWarning, match=r"SAFECODE_ACTIONS__UNSAFE.*from_settings"):
        guard = guarded_without_policy()
    assert guard.policy.actions.unsafe == "guide"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guarded(policy=Policy())
        assert SafeCoDeGuard.from_settings(model()).policy.actions.unsafe == "block"


def guarded_without_policy() -> SafeCoDeGuard:
    return SafeCoDeGuard(model=model(), judge=ScriptedJudge())


def test_from_settings_merges_overrides_key_by_key(monkeypatch):
    monkeypatch.setenv("SAFECODE_PRESET", "strict")
    monkeypatch.setenv("SAFECODE_ACTIONS__UNSAFE", "block")
    for settings in (None, SafeCoDeSettings()):
        guard = SafeCoDeGuard.from_settings(model(), settings, actions={"safe": "pass"})
        actions = guard.policy.actions
        assert (actions.safe, actions.unsafe, actions.judge_error) == ("pass", "block", "block")
    judge = {"kind": "custom", "id": "scripted"}
    guard = SafeCoDeGuard.from_settings(
        model(), SafeCoDeSettings(), judge=ScriptedJudge(), decoding={"alpha": 0.5}
    )
    assert guard.policy.decoding.alpha == 0.5
    assert guard.policy.updated(judge=judge).judge.id == "scripted"


# -- limits ----------------------------------------------------------------------------------


def test_beam_search_is_refused():
    with pytest.raises(UnsupportedGeneration, match="num_beams"):
        guarded().invoke(ask(), num_beams=4)


def test_the_deadline_ends_a_turn():
    inner = ChatTransformers.from_engine(Slow(LONG), temperature=0)
    with pytest.raises(TurnTimeout, match="tokens"):
        guarded(model=inner, policy=Policy(deadline_s=0.2)).invoke(ask())


def test_trace_on_demand():
    reply = guarded(0.9).invoke(ask(), safecode_trace=True)
    steps = reply.response_metadata["safecode_trace"]
    assert [step["step"] for step in steps] == list(range(5))
    assert all(step["clean"] and step["second"] for step in steps)
    assert "safecode_trace" not in guarded(0.9).invoke(ask()).response_metadata


# -- identity and content --------------------------------------------------------------------


def test_digest_and_identity_tell_policies_judges_and_models_apart():
    a, b = guarded(), guarded(policy=Policy.preset("strict"))
    c = guarded(judge=ScriptedJudge(0.1, id="other"))
    digests = {Verdict.from_message(g.invoke(ask())).policy.digest for g in (a, b, c)}
    assert len(digests) == 3
    keys = {str(g._identifying_params) for g in (a, b, c)}
    assert len(keys) == 3
    warmer = guarded(model=ChatTransformers.from_engine(ScriptedVLM(HELP), temperature=0.7))
    assert str(warmer._identifying_params) not in keys


def test_the_identity_of_a_guard_is_its_verdicts_digest():
    own = SafeCoDeGuard(model=model(), strategy=None)
    assert own._identifying_params["policy"] == own.check(ask()).policy.digest
    other = guarded()
    assert other._identifying_params["policy"] == other.check(ask()).policy.digest


def test_two_policies_do_not_share_cached_answers():
    cache = InMemoryCache()
    lax = guarded(0.99, cache=cache)
    strict = guarded(0.99, cache=cache, policy=BLOCKING)
    assert lax.invoke(ask()).text == HELP
    assert strict.invoke(ask()).text == strict.policy.refusal_text
    again = strict.invoke(ask())
    assert Verdict.from_message(again).action == "block"


def test_captions_stay_out_of_verdicts_unless_recorded():
    judgement = Judgement(
        judge_id="scripted", prompt_version="1", p_unsafe=0.9, caption="A cliff.", rationale="High."
    )
    hidden = Verdict.from_message(guarded(judgement).invoke(ask()))
    assert (hidden.caption, hidden.rationale) == (None, None)
    shown = guarded(judgement, policy=Policy(record_content=True)).invoke(ask())
    assert Verdict.from_message(shown).caption == "A cliff."


def test_verdicts_hold_no_pixels_and_no_text_of_the_conversation():
    verdict = Verdict.from_message(guarded().invoke(ask("A secret request")))
    text = verdict.model_dump_json()
    assert "secret" not in text
    assert len(text) < 2000
