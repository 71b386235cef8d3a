"""No picture reaches a model that is not in the verdict: 50,000 random conversations."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from safecode_guard import ChatTransformers, Policy, SafeCoDeGuard, Verdict
from safecode_guard.errors import GuardError
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from tests.soak.conversations import conversation, sha256
from tests.soak.providers import PROVIDERS, pictures, remote

COUNT = int(os.environ.get("SOAK_CONVERSATIONS", "50000"))
CHUNK = 1000
CHUNKS = range(0, COUNT, CHUNK)


class Recorder(BaseChatModel):
    """Keeps the messages it is given."""

    given: list[Any] = []

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.given.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("Yes."))])


class Watched(ScriptedVLM):
    """Keeps the pixels it is shown."""

    def __init__(self) -> None:
        super().__init__("Yes.")
        self.shown: list[bytes] = []

    def encode(self, turns, *, tools=(), **options):
        for turn in turns:
            for image in turn.messages and [
                turn.images[i] for m in turn.messages for i in m.image_indices
            ]:
                self.shown.append(image.sha256.encode())
                assert image.pixels.mode == "RGB"
        return super().encode(turns, tools=tools, **options)


@pytest.mark.parametrize("start", CHUNKS)
def test_the_called_model_is_given_judged_pictures_only(start: int) -> None:
    model = Recorder(given=[])
    guard = SafeCoDeGuard(
        model=model, judge=ScriptedJudge(0.01), policy=Policy.load({"mode": "judge_only"})
    )
    outcomes: Counter[str] = Counter()
    for seed in range(start, start + CHUNK):
        model.given.clear()
        try:
            reply = guard.invoke(conversation(seed))
        except GuardError as error:
            outcomes[type(error).__name__] += 1
            assert not model.given
            continue
        except ValueError as error:  # of LangChain's own, before the guard is asked
            outcomes[f"core: {error}"[:60]] += 1
            assert not model.given
            continue
        verdict = Verdict.from_message(reply)
        outcomes["blocked" if not model.given else "answered"] += 1
        if not model.given:
            assert verdict is not None
            continue
        judged = set() if verdict is None else {i.sha256 for i in verdict.images}
        judged |= set() if verdict is None else {i.shown_sha256 for i in verdict.images}
        for provider in PROVIDERS:
            try:
                payload = provider(model.given[0])
            except Exception:  # a conversation that this provider does not take
                outcomes[f"refused by {provider.__name__}"] += 1
                continue
            outcomes[f"sent by {provider.__name__}"] += 1
            assert not list(remote(payload)), (seed, provider.__name__)
            for picture in pictures(payload):
                assert sha256(picture) in judged, (seed, provider.__name__)
    assert outcomes["answered"] > CHUNK * 0.05, outcomes
    assert outcomes["blocked"] > CHUNK * 0.05, outcomes


@pytest.mark.parametrize("start", CHUNKS)
def test_the_steered_model_is_shown_judged_pictures_only(start: int) -> None:
    engine = Watched()
    judge = ScriptedJudge(0.01)
    guard = SafeCoDeGuard(model=ChatTransformers.from_engine(engine, temperature=0), judge=judge)
    for seed in range(start, start + CHUNK):
        engine.shown.clear()
        judge.requests.clear()
        try:
            reply = guard.invoke(conversation(seed))
        except GuardError:
            assert not engine.shown
            continue
        except ValueError:  # of LangChain's own, before the guard is asked
            assert not engine.shown
            continue
        verdict = Verdict.from_message(reply)
        judged = set() if verdict is None else {i.sha256.encode() for i in verdict.images}
        assert set(engine.shown) <= judged, seed
