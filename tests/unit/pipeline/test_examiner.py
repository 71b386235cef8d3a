"""Judging a subject, concluding its verdict, and telling it."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from safecode_guard.errors import JudgeError
from safecode_guard.judges.protocol import OpenPrompt, ToolCallSubject
from safecode_guard.pipeline.examiner import Finding, Subject
from safecode_guard.pipeline.host import ThisThread, run
from safecode_guard.pipeline.requests import Run
from safecode_guard.pipeline.rules import Decision
from safecode_guard.testing import Delay, ScriptedJudge, ScriptedVLM
from safecode_guard.turns.reading import read_turn
from safecode_guard.verdict import DecodingRecord, Judgement
from tests.messages import ask, image_block, text_block
from tests.unit.pipeline.serving import BLOCKING, examiner, heard, turn, words

CALL = ToolCallSubject("7", "walk_to", {"target": "edge"})
AUDIO = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
COLOURS = ("red", "blue", "green", "white", "black", "teal")


def unreadable():
    return read_turn([HumanMessage([image_block(), AUDIO, text_block("?")])])


def colour_of(request) -> tuple:
    return request.scene.images[0].pixels.getpixel((0, 0))


# -- what is asked ---------------------------------------------------------------------------


def test_a_turn_is_one_request_for_each_scene_the_newest_first():
    subject = Subject("input", turn("Where?", *COLOURS), deadline=7.0)
    requests = subject.requests(most=4)
    assert [request.scene.indices for request in requests] == [(2, 3, 4, 5), (0, 1, 2, 3)]
    assert {request.stage for request in requests} == {"input"}
    assert {request.deadline for request in requests} == {7.0}


@pytest.mark.parametrize(("own", "scenes"), [(0, 1), (1, 1), (5, 2)])
def test_of_a_result_or_an_answer_only_its_own_pictures_have_to_be_covered(own, scenes):
    subject = Subject("tool_result", turn("Where?", *COLOURS), result="x", own_images=own)
    assert len(subject.requests(most=4)) == scenes


def test_a_request_carries_what_its_stage_is_about():
    prompt = OpenPrompt(ScriptedVLM(), None, 0)
    called = Subject("tool_call", turn(), tool_call=CALL).requests(most=4)[0]
    answered = Subject("output", turn(), answer="Run.").requests(most=4, prompt=prompt)[0]
    assert (called.stage, called.tool_call) == ("tool_call", CALL)
    assert (answered.answer, answered.prompt) == ("Run.", prompt)


def test_a_tools_rules_go_by_its_name():
    assert Subject("tool_call", turn(), tool_call=CALL).tool == "walk_to"
    assert Subject("input", turn()).tool is None


# -- what need not be judged -----------------------------------------------------------------


def test_words_alone_pass_and_a_picture_has_to_be_judged():
    assert examiner().settled(Subject("input", words())).decision == Decision(None, "pass")
    assert examiner().settled(Subject("input", turn())) is None
    assert examiner().settled(Subject("tool_call", words(), tool_call=CALL)) is None


def test_what_cannot_be_judged_is_settled_and_refused():
    finding = examiner().settled(Subject("input", unreadable()))
    assert finding.decision == Decision(None, "block", degraded=True)
    assert finding.judgement is None


# -- judging ---------------------------------------------------------------------------------


def test_one_dangerous_scene_makes_the_whole_turn_dangerous():
    judge = ScriptedJudge(lambda request: 0.9 if colour_of(request) == (255, 0, 0) else 0.1)
    verdict = examiner(judge).check(Subject("input", turn("Where?", *COLOURS)))
    assert (verdict.label, verdict.p_unsafe) == ("unsafe", 0.9)
    assert verdict.decided_by == (0, 1, 2, 3)
    assert len(verdict.images) == 6


def test_among_equals_the_likeliest_danger_decides_and_a_failed_scene_goes_before_all():
    def judged(request):
        return {2: 0.8, 0: 0.95}[request.scene.indices[0]]

    subject = Subject("input", turn("Where?", *COLOURS))
    assert examiner(judged_by(judged), {"scene_judged": "together"}).check(subject).p_unsafe == 0.95

    def failing(request):
        return JudgeError("down") if request.scene.indices[0] == 0 else 0.1

    verdict = examiner(judged_by(failing)).check(subject)
    assert (verdict.label, verdict.action, verdict.degraded) == (None, "review", True)


def judged_by(script) -> ScriptedJudge:
    return ScriptedJudge(script)


def test_the_policy_says_how_many_pictures_a_judge_is_shown_together():
    judge = ScriptedJudge(0.1)
    examiner(judge, {"scene_images": 2, "scene_judged": "together"}).check(
        Subject("input", turn("Where?", *COLOURS))
    )
    assert sorted(request.scene.indices for request in judge.requests) == [(0, 1), (2, 3), (4, 5)]


def test_a_scene_is_judged_once_while_a_conversation_grows():
    judge = ScriptedJudge(0.1)
    checks = examiner(judge, {"scene_images": 2, "scene_judged": "together"})
    checks.check(Subject("input", turn("Where?", *COLOURS[:4])))
    assert len(judge.requests) == 2
    checks.check(Subject("input", turn("Where?", *COLOURS)))
    assert [request.scene.indices for request in judge.requests[2:]] == [(4, 5)]


def test_the_same_judgement_may_follow_from_another_policy_afresh():
    judge = ScriptedJudge(0.9)
    first = examiner(judge)
    verdicts = [first.check(Subject("input", turn())) for _ in range(2)]
    assert [v.judge.cached for v in verdicts] == [False, True]
    assert len({v.id for v in verdicts}) == 2
    other = examiner(judge, BLOCKING)
    assert other.check(Subject("input", turn())).action == "block"
    assert len(judge.requests) == 2


def test_a_cache_of_size_zero_keeps_nothing():
    judge = ScriptedJudge(0.9)
    checks = examiner(judge, {"judge": {"cache_size": 0}})
    for _ in range(2):
        assert not checks.check(Subject("input", turn())).judge.cached
    assert len(judge.requests) == 2


def test_stages_do_not_share_judgements():
    judge = ScriptedJudge(0.9)
    checks = examiner(judge)
    checks.check(Subject("input", turn()))
    checks.check(Subject("output", turn(), answer="Run."))
    checks.check(Subject("output", turn(), answer="Jump."))
    assert len(judge.requests) == 3


def test_several_subjects_are_judged_in_order_and_stay_apart():
    def judged(request):
        return 0.9 if "cliff" in request.scene.request else 0.1

    subjects = [Subject("input", turn(text)) for text in ("park", "cliff", "lake")]
    findings = run(examiner(judged_by(judged)).judged(subjects, ThisThread()))
    assert [finding.decision.label for finding in findings] == ["safe", "unsafe", "safe"]


def test_a_judge_that_is_late_or_broken_is_a_failed_check():
    late = examiner(ScriptedJudge(Delay(1.0, 0.1)), {"judge": {"timeout_s": 0.05}})
    broken = examiner(ScriptedJudge(RuntimeError("a secret")))
    for checks, said in ((late, "deadline"), (broken, "unexpected")):
        verdict = checks.check(Subject("input", turn()))
        assert (verdict.label, verdict.degraded) == (None, True)
        assert said in verdict.error
        assert "secret" not in verdict.error


def test_without_steering_a_guide_is_a_pass_or_a_block():
    judge = ScriptedJudge([0.1, 0.9])
    checks = examiner(judge, steers=False)
    actions = [checks.check(Subject("input", turn(text))).action for text in ("a", "b")]
    assert actions == ["pass", "block"]


def test_a_stage_may_have_a_judge_of_its_own():
    vlm = ScriptedVLM(p_unsafe=0.9)
    stages = {"output": {"judge": {"kind": "same_model"}}}
    checks = examiner(0.1, {"stages": stages}, engine=vlm)
    assert checks.check(Subject("input", turn())).label == "safe"
    verdict = checks.check(Subject("output", turn(), answer="Run."))
    assert (verdict.label, verdict.judge.id) == ("unsafe", "label-logits:scripted-vlm")


# -- the verdict -----------------------------------------------------------------------------


def test_a_verdict_says_what_was_judged_and_by_whom():
    result = ToolMessage([image_block("blue")], tool_call_id="1")
    asked = read_turn([*ask(), AIMessage("", tool_calls=[]), result])
    checks = examiner(0.9)
    subject = Subject("tool_call", asked, tool_call=CALL, run=Run("run-1"))
    verdict = checks.check(subject)
    assert (verdict.stage, verdict.run_id) == ("tool_call", "run-1")
    assert [image.message_index for image in verdict.images] == [0, 2]
    assert (verdict.tool_call.id, verdict.tool_call.name) == ("7", "walk_to")
    assert verdict.tool_call.args_sha256 == CALL.args_sha256()
    assert (verdict.judge.id, verdict.judge.prompt_version) == ("scripted", "scripted-1")
    assert (verdict.policy.name, verdict.policy.digest) == ("t", checks.digest)


def test_the_decoding_record_is_the_one_that_is_given():
    record = DecodingRecord(strategy="x", seed=1, steps=2)
    finding = Finding(Decision("unsafe", "guide"))
    verdict = examiner().conclude(Subject("input", turn()), finding, decoding=record)
    assert verdict.decoding == record


@pytest.mark.parametrize(("recorded", "caption"), [(False, None), (True, "A cliff.")])
def test_content_is_recorded_only_where_the_policy_says_so(recorded, caption):
    found = Judgement(
        judge_id="scripted", prompt_version="1", p_unsafe=0.9, caption="A cliff.", rationale="High."
    )
    verdict = examiner(ScriptedJudge(found), {"record_content": recorded}).check(
        Subject("input", turn())
    )
    assert (verdict.caption, verdict.rationale is not None) == (caption, recorded)


# -- telling ---------------------------------------------------------------------------------


def test_sinks_hear_of_a_verdict_before_its_run_does():
    order, told = [], []
    sinks = (lambda verdict: order.append("audit"), lambda verdict: order.append("health"))
    run_ = Run("run-1", lambda verdict: (order.append("run"), told.append(verdict)))
    verdict = examiner(0.9, sinks=sinks).check(Subject("input", turn(), run=run_))
    assert order == ["audit", "health", "run"]
    assert told == [verdict]


def test_what_was_refused_unseen_is_told_and_what_passed_unjudged_is_not():
    told = []
    checks = examiner()
    refused = checks.check(Subject("input", unreadable(), run=heard(told)))
    assert (refused.parse_status, [s.kind for s in refused.media_skipped]) == ("not_run", ["audio"])
    passed = checks.check(Subject("input", words(), run=heard(told)))
    assert (passed.label, passed.action) == (None, "pass")
    assert told == [refused]
