"""What chat models on an engine have in common: options, limits, forms of answers."""

import threading

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from safecode_guard.errors import ImageError, LogitsUnavailable, UnsupportedGeneration
from safecode_guard.models.protocol import Sampling
from safecode_guard.output.request import OutputForm
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.runnables.vision_model import ChatVisionModel
from safecode_guard.testing import ScriptedServer, ScriptedVLM
from safecode_guard.verdict import Verdict
from tests.messages import ask, image_block, text_block
from tests.unit.runnables.guards import HELP, REFUSAL, model


@tool
def walk_to(target: str) -> str:
    """Walk to a target."""
    return target


class Place(BaseModel):
    """A place."""

    name: str


# -- options ---------------------------------------------------------------------------------


def sampling(chat=None, stop=None, **options) -> Sampling:
    return (chat or model()).sampling(stop, options)


def test_a_models_fields_are_its_defaults_and_a_calls_options_go_before_them():
    chat = ChatTransformers(model="m", temperature=0.5, top_p=0.9, seed=3, max_tokens=20)
    assert sampling(chat) == Sampling(True, 0.5, 0.9, seed=3, max_tokens=20)
    changed = sampling(chat, top_p=0.5, top_k=4, repetition_penalty=1.2, seed=0, max_tokens=5)
    assert changed == Sampling(True, 0.5, 0.5, 4, 1.2, seed=0, max_tokens=5)


@pytest.mark.parametrize(("temperature", "draws"), [(0, False), (0.5, True), (None, None)])
def test_temperature_says_whether_tokens_are_drawn(temperature, draws):
    found = sampling(ChatTransformers(model="m", temperature=temperature))
    assert (found.do_sample, found.temperature) == (draws, temperature or None)


def test_a_temperature_of_zero_in_a_call_is_not_none():
    assert sampling(ChatTransformers(model="m", temperature=0.7), temperature=0).do_sample is False


def test_openais_name_for_the_budget_is_read():
    assert sampling(max_completion_tokens=4, max_tokens=9).max_tokens == 4


@pytest.mark.parametrize("given", [{"stop": ["."]}, {"stop_sequences": ["."]}])
def test_stops_come_from_the_call_in_either_form_or_from_the_model(given):
    assert model().sampling(given.get("stop"), given).stop == (".",)
    own = ChatTransformers(model="m", stop=["own"])
    assert sampling(own).stop == ("own",)
    assert sampling(ChatTransformers(model="m", stop_sequences=["own"])).stop == ("own",)


def test_stops_end_an_answer():
    assert model().invoke(ask(), stop=["along"]).text == "Run "


@pytest.mark.parametrize("name", ["num_beams", "num_beam_groups", "num_return_sequences", "n"])
def test_several_answers_at_once_are_refused(name):
    assert sampling(**{name: 1}) == sampling()
    with pytest.raises(UnsupportedGeneration, match=name):
        sampling(**{name: 2})


# -- the engine ------------------------------------------------------------------------------


def test_weights_load_once_on_first_use_whoever_comes_first():
    opened = []

    class Counting(ChatTransformers):
        def _open(self):
            opened.append(threading.get_ident())
            return ScriptedVLM(HELP)

    chat = Counting(model="m")
    assert chat.profile["image_inputs"]
    assert opened == []
    engines: list = []
    threads = [threading.Thread(target=lambda: engines.append(chat.engine)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == len(set(map(id, engines))) == 1


class ChatServer(ChatVisionModel):
    """A chat model on an engine of another kind."""

    def _open(self):
        return ScriptedServer(ScriptedVLM({HELP: 0.3, REFUSAL: 0.0}, p_unsafe=0.95))

    @property
    def _llm_type(self):
        return "server"


def test_a_chat_model_on_another_engine_is_guarded_like_any():
    """Nothing above asks what the engine is: it judges itself, and steers by record."""
    chat = ChatServer(model="served")
    assert chat.invoke(ask()).text == HELP
    reply = SafeCoDeGuard(model=chat).invoke(ask())
    verdict = Verdict.from_message(reply)
    assert (reply.text, verdict.label) == (REFUSAL, "unsafe")
    assert verdict.judge.id == "label-logits:server:scripted-vlm"


def test_guards_around_a_model_share_its_queue_and_its_pictures():
    chat = model()
    assert chat.admission is chat.admission
    assert chat.pictures is chat.pictures


def test_media_that_cannot_be_judged_are_a_typed_error():
    audio = {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}
    with pytest.raises(ImageError, match="message 0, block 1"):
        model().invoke([HumanMessage([image_block(), audio])])


def test_limits_on_pictures_are_the_models_own():
    small = ChatTransformers.from_engine(ScriptedVLM(HELP), images={"max_pixels": 4})
    with pytest.raises(ImageError):
        small.invoke([HumanMessage([image_block(), text_block("?")])])


# -- forms -----------------------------------------------------------------------------------


def test_free_answers_need_no_grammar():
    assert model().grammars(OutputForm()) == (None, None)


def test_a_refusal_branch_has_a_grammar_of_its_own():
    form = OutputForm(schema=Place.model_json_schema(), allow_refusal=True)
    constraint, refusal = model().grammars(form)
    assert constraint is not None
    assert refusal is not None
    assert model().grammars(OutputForm(schema=Place.model_json_schema()))[1] is None


def test_an_engine_without_grammars_says_so_before_it_is_asked():
    chat = ChatTransformers.from_engine(ScriptedServer(ScriptedVLM(HELP)))
    assert chat.invoke(ask()).text == HELP
    with pytest.raises(LogitsUnavailable, match="hold an answer to a form"):
        chat.with_structured_output(Place).invoke(ask())


def test_the_shape_of_an_answer_follows_its_form():
    form = OutputForm.from_options(model().bind_tools([walk_to], tool_choice="any").kwargs)
    shape = model().shape(form)
    assert (shape.tools, shape.forced_tool) == (("walk_to",), True)
    assert shape.model_name == "scripted-vlm"
