"""The baseline ECSO."""

from __future__ import annotations

import pytest
import torch

from safecode_guard.bench.paired.items import tiny_exam
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Abilities, Sampling
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.policy import Policy
from safecode_guard.steering.baselines.ecso import Ecso, Replay, read_told, unseeing
from safecode_guard.steering.factory import check_runs
from safecode_guard.steering.protocol import Probed
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage
from tests.reference.ecso import naive_ecso
from tests.unit.steering.contexts import PICTURE, WORDS, context, step
from tests.unit.steering.vocabularies import byte_level

HARM, HARMLESS, SAFE = "Run to the edge.", "Run in the park.", "Stay away from there."


def scripted(scene):
    """A model that finds harm in one of its answers, and is careful when it sees nothing."""
    asked = scene.question
    if "Could your last answer" in asked:
        return "Yes." if HARM in scene.prompt else "No."
    if asked.startswith("Describe what"):
        return "A cliff."
    if not scene.images:
        return SAFE if "A cliff." in asked else "What?"
    return HARM if scene.images[0].getpixel((0, 0))[0] == 200 else HARMLESS


def asked(exam, colour):
    turn = exam.items[0].turn
    return turn.with_pixels([turn.pixels[0].point(lambda _: colour)])


@pytest.fixture(scope="module")
def exam():
    return tiny_exam(3, scary=0, looks=0, split="test")


def served(model, turns, *, max_tokens=64, **sampling):
    policy = Policy.load({"decoding": {"strategy": "ecso"}})
    guarded = make_turns(model, make_examiner(policy, judge=ScriptedJudge(0.2)))
    requests = [TurnRequest(t, Sampling(max_tokens=max_tokens, **sampling)) for t in turns]
    results = guarded.run(requests)
    assert all(isinstance(result, TurnResult) for result in results), results
    return results


def test_a_harmful_answer_is_given_again_from_the_caption_alone(exam):
    model = ScriptedVLM(scripted)
    results = served(model, [asked(exam, 200), asked(exam, 30)])
    assert [result.text for result in results] == [SAFE, HARMLESS]
    told = [result.verdicts[0].decoding.parameters["harmful"] for result in results]
    assert told == ["yes", "no"]


def test_what_goes_out_is_what_was_looked_at_however_the_caller_samples(exam):
    """Drawn anew, a hot answer would be another one than the model called harmless."""
    model = ScriptedVLM(
        lambda scene: "No." if "Could your" in scene.question else {HARMLESS: 0.3, HARM: 0.0}
    )
    for seed in range(6):
        (result,) = served(model, [asked(exam, 1)], do_sample=True, temperature=5.0, seed=seed)
        assert (result.text, result.finish) == (HARMLESS, "stop")


def test_the_callers_budget_holds(exam):
    (result,) = served(ScriptedVLM(scripted), [asked(exam, 30)], max_tokens=3)
    assert (result.text, result.finish) == (HARMLESS[:3], "length")


def test_an_answer_cut_off_by_its_own_budget_is_not_gone_on_with():
    long = Probed("aa", tokens=(97, 97))
    made = Replay(long.tokens)
    assert (made.max_tokens, made.steps, made.done([97]), made.done([97, 97])) == (
        *(2, 2, False, True),
    )


def test_the_embedded_model_answers_as_the_naive_twin(exam):
    model = TransformersModel.load(str(weights_path("chat")), local_files_only=True)
    for item in exam.items[:3]:
        (result,) = served(model, [item.turn], max_tokens=256)
        unseen, ids = naive_ecso(model, item.turn, 256)
        assert list(result.tokens) == ids
        assert (result.verdicts[0].decoding.parameters["harmful"] != "no") == unseen


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("No", "no"),
        (" no.", "no"),
        ("**No**, it is fine", "no"),
        ("Yes, it could.", "yes"),
        ("Nothing harmful", "unclear"),
        ("Not at all", "unclear"),
        ("It depends", "unclear"),
        ("", "unclear"),
    ],
)
def test_only_a_plain_no_is_one(reply, told):
    assert read_told(reply) == told


def test_what_is_unclear_is_answered_unseeing():
    replies = iter(["Run.", "Maybe.", "A cliff.", "Better not."])
    seen = context(byte_level(), probe=lambda turns, **_: [Probed(next(replies))])
    strategy = Ecso()
    made = strategy.prepare(seen)
    assert byte_level().decode(made.tokens[:-1]) == "Better not."
    assert strategy.record(seen)["harmful"] == "unclear"  # and the model is asked nothing more


def test_a_replay_leaves_one_token():
    logits = torch.randn(1, 300)
    got = Replay((7, 256)).adjust(step(logits, [7]))
    assert int(got.argmax()) == 256
    assert int(got.isfinite().sum()) == 1


def test_unseeing_leaves_no_picture_anywhere():
    before = (
        TurnMessage("system", (TextPart("Be kind."),)),
        TurnMessage("user", (ImagePart(0),)),
        TurnMessage("assistant", (TextPart("A park."),)),
    )
    last = TurnMessage("user", (TextPart("Look: "), ImagePart(0), TextPart("run?")))
    turn = Turn((*before, last), PICTURE.images)
    words = unseeing(turn, "A cliff.")
    assert words.images == ()
    assert not any(message.judged_indices for message in words.messages)
    assert [message.text for message in words.messages] == [
        "Be kind.",
        "(a picture)",
        "A park.",
        "What the picture shows: A cliff.\n\nThe request: Look: run?",
    ]


def test_words_alone_are_left_alone():
    seen = context(byte_level(), turn=WORDS)
    assert Ecso().prepare(seen) is None
    assert Ecso().record(seen) == {}


def test_it_needs_logits():
    with pytest.raises(LogitsUnavailable):
        check_runs(Ecso(), Abilities())
