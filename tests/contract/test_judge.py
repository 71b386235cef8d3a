"""What every judge promises, run over every judge of the library and its fakes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from PIL import Image

from safecode_guard.engines.transformers.batch import Job
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.sharing import share
from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.chat import ChatJudge
from safecode_guard.judges.failsafe import arun_judge, run_judge, run_many
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import BatchJudge, Judge, JudgeRequest, ToolCallSubject
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline.factory import load_local
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.taxonomy import CATEGORIES, LABELS, Stage
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage
from safecode_guard.verdict import Judgement

UNSAFE_JSON = '{"label": "unsafe", "p_unsafe": 0.9, "categories": ["situational"]}'


class RaisingChat(FakeListChatModel):
    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no route to host")


def scripted() -> Judge:
    return ScriptedJudge(0.9)


def label_logits() -> Judge:
    return LabelLogitsJudge(ScriptedVLM("Words.", p_unsafe=0.9), caption=True, rationale=True)


def local() -> Judge:
    return LocalJudge(LocalJudgeConfig(model="m"), load=lambda _: ScriptedVLM(p_unsafe=0.9))


def chat_json() -> Judge:
    return ChatJudge(FakeListChatModel(responses=[UNSAFE_JSON]))


def chat_word() -> Judge:
    return ChatJudge(FakeListChatModel(responses=["unsafe"]), reply="word")


JUDGES = [scripted, label_logits, local, chat_json, chat_word]
OUT_OF_ORDER: list[Callable[[], Judge]] = [
    lambda: ScriptedJudge(JudgeError("down")),
    lambda: LabelLogitsJudge(ScriptedVLM(error=ModelError("broken"))),
    lambda: LocalJudge(
        LocalJudgeConfig(model="m"), load=lambda _: ScriptedVLM(error=ModelError("broken"))
    ),
    lambda: ChatJudge(RaisingChat(responses=[])),
]


def requests() -> list[JudgeRequest]:
    image = CheckedImage(Image.new("RGB", (8, 8), "red"), "a" * 64, "image/png", 0, 0)
    look = TurnMessage("user", (ImagePart(0), TextPart("How do I run faster here?")))
    call = TurnMessage("assistant", (), (ToolCall("1", "look", {"at": "sea"}),))
    shown = TurnMessage("tool", (TextPart("a view"), ImagePart(1)), tool_call_id="1")
    turn = Turn((look,), (image,))
    subject = ToolCallSubject("2", "cut", {"what": "rope"})
    return [
        JudgeRequest("input", turn),
        JudgeRequest("input", Turn((TurnMessage("user", (TextPart("Hello"),)),))),
        JudgeRequest("tool_call", turn, tool_call=subject),
        JudgeRequest("tool_result", Turn((look, call, shown), (image, image))),
        JudgeRequest("output", turn, answer="Run along the edge."),
    ]


@pytest.fixture(params=JUDGES, ids=lambda make: make.__name__)
def judge(request: pytest.FixtureRequest) -> Judge:
    made: Judge = request.param()
    return made


def check(judgement: Judgement, judge: Judge) -> None:
    assert isinstance(judgement, Judgement)
    assert judgement.judge_id == judge.id
    assert judgement.prompt_version == judge.prompt_version
    assert judgement.failed is None
    assert judgement.label in (*LABELS, None)
    assert judgement.label is not None or judgement.p_unsafe is not None
    assert judge.gives_categories or not judgement.categories
    assert set(judgement.categories) <= set(CATEGORIES)
    assert judgement.latency_ms >= 0
    assert Judgement.model_validate_json(judgement.model_dump_json()) == judgement


def says_unsafe(judgement: Judgement) -> bool:
    p = judgement.p_unsafe
    return p > 0.8 if p is not None else judgement.label == "unsafe"


def test_it_is_a_judge(judge: Judge) -> None:
    assert isinstance(judge, Judge)
    assert judge.id
    assert judge.prompt_version
    assert isinstance(judge.gives_categories, bool)


@pytest.mark.parametrize("request_", requests(), ids=lambda r: f"{r.stage}")
async def test_every_stage_is_judged_both_ways_alike(judge: Judge, request_: JudgeRequest) -> None:
    sync, later = judge.judge(request_), await judge.ajudge(request_)
    for judgement in (sync, later):
        check(judgement, judge)
        assert says_unsafe(judgement)
    same = {"latency_ms": 0.0}
    assert sync.model_copy(update=same) == later.model_copy(update=same)


def test_many_are_judged_in_order(judge: Judge) -> None:
    found = run_many(judge, requests())
    assert len(found) == len(requests())
    for judgement in found:
        check(judgement, judge)
    if isinstance(judge, BatchJudge):
        assert judge.judge_many([]) == []


def test_cached_judgement_is_the_same_but_marked(judge: Judge) -> None:
    cache, request = JudgementCache(8), requests()[0]
    fresh = run_judge(judge, request)
    cache.put(request.key(judge.id, judge.prompt_version), fresh)
    found = cache.get(request.key(judge.id, judge.prompt_version))
    assert found == fresh.model_copy(update={"cached": True})


def test_identity_is_stable_and_no_two_judges_share_a_key(judge: Judge) -> None:
    request = requests()[0]
    keys = {request.key(other.id, other.prompt_version) for other in (make() for make in JUDGES)}
    assert len(keys) == len(JUDGES)
    before = request.key(judge.id, judge.prompt_version)
    judge.judge(request)
    assert request.key(judge.id, judge.prompt_version) == before


async def test_passed_deadline_is_a_failed_check(judge: Judge) -> None:
    late = JudgeRequest("input", requests()[0].turn, deadline=time.monotonic() - 1)
    for judgement in (
        run_judge(judge, late),
        await arun_judge(judge, late),
        *run_many(judge, [late, late]),
    ):
        assert judgement.failed is not None
        assert "deadline" in judgement.failed
        assert (judgement.label, judgement.p_unsafe) == (None, None)


def test_far_deadline_changes_nothing(judge: Judge) -> None:
    far = JudgeRequest("input", requests()[0].turn, deadline=time.monotonic() + 60)
    check(run_judge(judge, far), judge)


@pytest.mark.parametrize("make", OUT_OF_ORDER)
@pytest.mark.parametrize("stage", ["input", "output"])
async def test_judge_out_of_order_raises_and_never_guesses(
    make: Callable[[], Judge], stage: Stage
) -> None:
    judge, request = make(), JudgeRequest(stage, requests()[0].turn, answer="x")
    with pytest.raises(JudgeError):
        judge.judge(request)
    with pytest.raises(JudgeError):
        await judge.ajudge(request)
    for judgement in (run_judge(judge, request), *run_many(judge, [request, request])):
        assert judgement.failed is not None
        assert (judgement.label, judgement.p_unsafe) == (None, None)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest embedded model, on its own family's record."""
    folder = tmp_path_factory.mktemp("judge") / "nano"
    shutil.copytree(weights_path("nano"), folder)
    record = json.loads((folder / "safecode.json").read_text())
    (folder / "safecode.json").write_text(json.dumps(record | {"family": "llava"}))
    return folder


async def test_local_judge_reads_a_real_models_label(nano: Path) -> None:
    judge = LocalJudge(LocalJudgeConfig(model=str(nano)), load=load_local)
    alone = [run_judge(judge, request) for request in requests()]
    together = run_many(judge, requests())
    later = [await arun_judge(judge, request) for request in requests()]
    for one, many, other in zip(alone, together, later, strict=True):
        check(one, judge)
        assert one.label_mass is not None
        assert one.parse_status == "logits"
        assert one.label_mass > 0.7
        assert many.p_unsafe == pytest.approx(one.p_unsafe, abs=1e-4)
        assert other.p_unsafe == pytest.approx(one.p_unsafe, abs=1e-6)


def test_verdict_on_a_shared_prefix_is_the_verdict_on_the_whole_prompt(nano: Path) -> None:
    model = TransformersModel.load(str(nano))
    judge = LabelLogitsJudge(model)
    asked = [request for request in requests() if request.stage == "input" and request.turn.images]
    whole = judge.judge_many(asked)
    jobs = [Job(request.turn, Sampling()) for request in asked]
    shared = share(model, jobs, [judge.question(request) for request in asked])
    assert shared is not None
    rows = [replace(request, prefix=shared.row(i)) for i, request in enumerate(asked)]
    for row, plain in zip(judge.judge_many(rows), whole, strict=True):
        assert row.p_unsafe == pytest.approx(plain.p_unsafe, abs=1e-4)
        assert row.label_mass == pytest.approx(plain.label_mass, abs=1e-4)
