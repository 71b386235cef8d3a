"""`ChatTransformers`: how one is made, and what identifies it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import ScriptedVLM
from tests.messages import ask
from tests.unit.runnables.guards import HELP


def test_from_pretrained_loads_nothing():
    chat = ChatTransformers.from_pretrained(Path("no/such/folder"), device="cpu")
    assert (chat.model_name, chat.device) == ("no/such/folder", "cpu")


def test_from_engine_is_named_after_it_unless_told():
    engine = ScriptedVLM(HELP, id="engine")
    assert ChatTransformers.from_engine(engine).model_name == "engine"
    chat = ChatTransformers.from_engine(engine, model="mine")
    assert (chat.model_name, chat.engine) == ("mine", engine)
    assert chat.invoke(ask()).response_metadata["model_name"] == "mine"


def test_from_objects_takes_what_transformers_loaded(build):
    loaded = build("qwen2_5_vl")
    chat = ChatTransformers.from_objects(loaded.model, loaded.processor, max_tokens=4)
    assert chat.engine.family.name == "qwen2_5_vl"
    assert chat.invoke(ask()).usage_metadata["output_tokens"] <= 4


def test_the_tiny_model_is_greedy_and_offline():
    tiny = ChatTransformers.tiny()
    assert (tiny.temperature, tiny.local_files_only, tiny.max_tokens) == (0.0, True, 64)
    assert ChatTransformers.tiny(max_tokens=8).max_tokens == 8


def test_credentials_are_never_shown_and_change_no_identity():
    def made(token):
        options = {"token": token, "hf_token": token, "trust": "yes", "token_budget": 3}
        return ChatTransformers(model="m", model_kwargs=options)

    assert "sesame" not in repr(made("sesame"))
    assert "sesame" not in str(made("sesame")._identifying_params)
    assert made("sesame")._identifying_params == made("other")._identifying_params
    kwargs = made("sesame")._identifying_params["model_kwargs"]
    assert (kwargs["trust"], kwargs["token_budget"]) == ("yes", 3)


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "other"}, {"revision": "abc"}, {"dtype": "float32"}, {"temperature": 0.3},
        {"top_p": 0.5}, {"top_k": 3}, {"repetition_penalty": 1.1}, {"seed": 1}, {"max_tokens": 9},
        {"stop": ["x"]}, {"model_kwargs": {"attn": "eager"}}, {"images": {"max_images": 1}},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_what_changes_answers_changes_the_identity(changed):
    """LangChain's cache of answers goes by it."""
    plain = ChatTransformers(model="m")
    other = ChatTransformers(**({"model": "m"} | changed))
    assert plain._identifying_params != other._identifying_params


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_k": 0}, {"max_tokens": 0}]
)
def test_values_that_are_none_are_refused(wrong):
    with pytest.raises(ValidationError):
        ChatTransformers(model="m", **wrong)


def test_traces_say_who_answered():
    params = ChatTransformers(model="m", temperature=0.2)._get_ls_params()
    assert params["ls_provider"] == "safecode_guard"
    assert params["ls_model_name"] == "m"
    assert params["ls_temperature"] == 0.2
