"""The same turn without a guard."""

import pytest
from langchain_core.messages import HumanMessage

from safecode_guard.errors import Overloaded
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.unguarded import unguarded
from safecode_guard.testing import ScriptedVLM
from safecode_guard.turns.reading import read_turn
from tests.messages import image_block, text_block
from tests.unit.pipeline.serving import HELP, REFUSAL, kinds, request, words


def test_nothing_is_judged_and_nothing_is_steered():
    vlm = ScriptedVLM({HELP: 0.1, REFUSAL: 0.0}, p_unsafe=1.0)
    (result,) = unguarded(vlm, Admission()).run([request()])
    assert (result.text, result.verdicts) == (HELP, ())
    assert vlm.calls[0][:2] == ("prefill", 1)
    assert {rows for _, rows, _ in vlm.calls} == {1}


def test_text_comes_as_it_is_made():
    turns = unguarded(ScriptedVLM(HELP), Admission())
    assert kinds(turns.events([request(live=True)])) == ["Piece", "TurnResult"]


def test_media_are_the_readers_business():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    asked = read_turn([HumanMessage([image_block(), audio, text_block("?")])])
    (result,) = unguarded(ScriptedVLM(HELP), Admission()).run([request(asked)])
    assert result.text == HELP


def test_words_and_pictures_may_share_a_call():
    results = unguarded(ScriptedVLM(HELP), Admission()).run([request(), request(words())])
    assert [result.text for result in results] == [HELP, HELP]


def test_the_queue_is_the_models():
    admission = Admission(active=1, waiting=0)
    with admission.enter():
        (error,) = unguarded(ScriptedVLM(HELP), admission).run([request()])
    assert isinstance(error, Overloaded)
    with pytest.raises(Overloaded):
        raise error
