"""Misspelt arguments are errors that name the one that was meant."""

import pytest
from langchain_core.language_models import FakeListChatModel

from safecode_guard.errors import GuardError, UnknownArgument
from safecode_guard.runnables.arguments import CALL, STANDARD, require_known
from safecode_guard.runnables.check import SafeCoDeCheck
from safecode_guard.runnables.guard import SafeCoDeGuard
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import ScriptedJudge
from tests.messages import ask
from tests.unit.runnables.guards import HELP, guarded, judged_only, model


def test_an_unknown_argument_is_both_kinds_of_error():
    assert issubclass(UnknownArgument, GuardError)
    assert issubclass(UnknownArgument, TypeError)


def test_the_nearest_name_is_named_and_without_one_all_are():
    with pytest.raises(UnknownArgument, match=r"A call.*'seeed'.*mean 'seed'"):
        require_known("A call", {"seed": 1, "seeed": 2}, {"seed"})
    with pytest.raises(UnknownArgument, match="It takes 'a', 'b'"):
        require_known("A call", {"zzzz": 1}, {"a", "b"})


def test_what_langchain_adds_for_traces_is_let_be():
    require_known("A call", {"ls_structured_output_format": {}}, set())


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: SafeCoDeGuard(model=model(), jugde=ScriptedJudge()), "judge"),
        (lambda: SafeCoDeGuard(model=model(), polcy="strict"), "policy"),
        (lambda: ChatTransformers(model="some/model", temprature=0.1), "temperature"),
        (lambda: ChatTransformers.from_pretrained("some/model", devise="cpu"), "device"),
        (lambda: ChatTransformers.from_engine(model().engine, max_token=7), "max_tokens"),
        (lambda: ChatTransformers.tiny(max_activ=1), "max_active"),
    ],
)
def test_constructors(make, meant):
    with pytest.raises(UnknownArgument, match=f"mean '{meant}'"):
        make()


def test_a_check_refuses_unknown_arguments_as_python_does():
    with pytest.raises(TypeError, match="jugde"):
        SafeCoDeCheck(jugde=ScriptedJudge())


@pytest.mark.parametrize("make", [model, guarded], ids=["model", "guard"])
@pytest.mark.parametrize("call", ["invoke", "stream", "batch"])
def test_calls(make, call):
    given = [ask()] if call == "batch" else ask()
    with pytest.raises(UnknownArgument, match="mean 'max_tokens'"):
        list(getattr(make(), call)(given, max_token=3))


async def test_async_calls():
    with pytest.raises(UnknownArgument, match="mean 'temperature'"):
        await guarded().ainvoke(ask(), temprature=0.2)
    with pytest.raises(UnknownArgument, match="mean 'temperature'"):
        [chunk async for chunk in guarded().astream(ask(), temprature=0.2)]


@pytest.mark.parametrize(
    "make", [SafeCoDeGuard, ChatTransformers.tiny], ids=["guard", "transformers"]
)
def test_constructors_take_langchains_standard_arguments(make):
    standard = {
        "temperature": 0.5, "max_tokens": 9, "timeout": 3.0, "stop": ["x"], "max_retries": 2,
        "api_key": "k",
    }  # fmt: skip
    assert set(standard) == STANDARD
    inner = {"model": model(), "judge": ScriptedJudge()} if make is SafeCoDeGuard else {}
    assert make(**inner, **standard)


def test_calls_take_them_too():
    options = {"temperature": 0, "max_tokens": 64, "timeout": 3.0, "max_retries": 2, "api_key": "k"}
    assert CALL >= STANDARD
    assert guarded().invoke(ask(), stop=["zzz"], **options).text == HELP


def test_a_model_that_is_only_called_knows_its_own_arguments():
    seen = {}

    class Noting(FakeListChatModel):
        def _call(self, *args, **kwargs):
            seen.update(kwargs)
            return HELP

    guard = judged_only(0.1, Noting(responses=[HELP]))
    assert guard.invoke(ask(), reasoning_effort="low").text == HELP
    assert seen["reasoning_effort"] == "low"
