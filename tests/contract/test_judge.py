"""What every judge promises, run over every judge of the library and its fakes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from PIL import Image

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.cache import JudgementCache
from safecode_guard.judges.chat import ChatJudge
from safecode_guard.judges.factory import make_judge
from safecode_guard.judges.failsafe import arun_judge, run_judge, run_many
from safecode_guard.judges.http import HttpJudge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import (
    BaseJudge,
    BatchJudge,
    Judge,
    JudgeAbilities,
    JudgeRequest,
    OpenPrompt,
    ToolCallSubject,
    judges_on,
)
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.policy import HttpJudgeConfig, LocalJudgeConfig, SameModelJudgeConfig
from safecode_guard.taxonomy import CATEGORIES, LABELS, Stage
from safecode_guard.testing import ModelEndpoint, ScriptedJudge, ScriptedVLM
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage
from safecode_guard.verdict import Judgement

UNSAFE_JSON = '{"label": "unsafe", "p_unsafe": 0.9, "categories": ["situational"]}'
QUESTION = "{query}\nIs it safe? Answer safe or unsafe."


class RaisingChat(FakeListChatModel):
    def _call(self, *args: Any, **kwargs: Any) -> str:
        raise ConnectionError("no route to host")


class Own(BaseJudge):
    """The least that a judge of one's own has to be."""

    id = "own-1"

    def judge(self, request: JudgeRequest) -> Judgement:
        return Judgement(judge_id=self.id, prompt_version=self.prompt_version, label="unsafe")


class Failing(Own):
    def judge(self, request: JudgeRequest) -> Judgement:
        raise JudgeError("down")


class Second(BaseJudge):
    """Passes its request on to another judge, as it is."""

    id = "second-1"

    def __init__(self, judge: Judge) -> None:
        self.members = (judge,)
        self.abilities = judge.abilities

    def judge(self, request: JudgeRequest) -> Judgement:
        found = self.members[0].judge(request)
        return found.model_copy(
            update={
                "judge_id": self.id,
                "prompt_version": self.prompt_version,
                "members": (found.judge_id,),
            }
        )


def alone(requests: Sequence[JudgeRequest]) -> list[JudgeRequest]:
    return list(requests)


@dataclass(frozen=True)
class Made:
    """A judge, and how requests come before it."""

    judge: Judge
    prepare: Callable[[Sequence[JudgeRequest]], list[JudgeRequest]] = alone


def on_open_prompts(engine: Engine) -> Callable[[Sequence[JudgeRequest]], list[JudgeRequest]]:
    """Give each request the prompt of its turn, open on an engine: one session for each kind."""

    def prepare(requests: Sequence[JudgeRequest]) -> list[JudgeRequest]:
        turns = [request.scene.turn for request in requests]
        keys = [engine.batch_key(turn, Sampling(), ()) for turn in turns]
        members = {key: [i for i, k in enumerate(keys) if k == key] for key in keys}
        sessions = {k: engine.open([turns[i] for i in m], Sampling()) for k, m in members.items()}
        prompts = [
            OpenPrompt(engine, sessions[key], members[key].index(i)) for i, key in enumerate(keys)
        ]
        return [replace(r, prompt=prompt) for r, prompt in zip(requests, prompts, strict=True)]

    return prepare


def scripted(folder: Path) -> Made:
    return Made(ScriptedJudge(0.9))


def label_logits(folder: Path) -> Made:
    vlm = ScriptedVLM("Words.", p_unsafe=0.9)
    return Made(LabelLogitsJudge(vlm, caption=True, rationale=True))


def label_logits_on_an_open_prompt(folder: Path) -> Made:
    vlm = ScriptedVLM("Words.", p_unsafe=0.9, id="open")
    return Made(LabelLogitsJudge(vlm), on_open_prompts(vlm))


def member_on_an_open_prompt(folder: Path) -> Made:
    vlm = ScriptedVLM("Words.", p_unsafe=0.9)
    return Made(Second(LabelLogitsJudge(vlm)), on_open_prompts(vlm))


def local(folder: Path) -> Made:
    family = Family("llava", judge_prompt=QUESTION)
    config = LocalJudgeConfig(model=str(folder))
    return Made(LocalJudge(config, load=lambda _: ScriptedVLM(p_unsafe=0.9, family=family)))


def chat_json(folder: Path) -> Made:
    return Made(ChatJudge(FakeListChatModel(responses=[UNSAFE_JSON])))


def chat_word(folder: Path) -> Made:
    return Made(ChatJudge(FakeListChatModel(responses=["unsafe"]), reply="word"))


def over_http(folder: Path, *, reply: Any = "auto", status: int = 200) -> Made:
    """A judge behind an endpoint in this process, where the scripted model answers."""
    endpoint = ModelEndpoint(ScriptedVLM(p_unsafe=0.9), name="m")
    config = HttpJudgeConfig(url="http://judge.test/v1", model="m", reply=reply, retries=0)
    transport = httpx.ASGITransport(endpoint.app())
    if status != 200:
        transport = httpx.MockTransport(lambda _: httpx.Response(status))  # type: ignore[assignment]
    return Made(HttpJudge(config, transport=transport))


def own(folder: Path) -> Made:
    return Made(Own())


JUDGES = [
    scripted,
    label_logits,
    label_logits_on_an_open_prompt,
    member_on_an_open_prompt,
    local,
    chat_json,
    chat_word,
    over_http,
    own,
]
OUT_OF_ORDER: list[Callable[[], Judge]] = [
    lambda: ScriptedJudge(JudgeError("down")),
    lambda: LabelLogitsJudge(ScriptedVLM(error=ModelError("broken"))),
    lambda: LabelLogitsJudge(ScriptedVLM(p_unsafe=float("nan"))),
    lambda: LocalJudge(
        LocalJudgeConfig(model="m"), load=lambda _: ScriptedVLM(error=ModelError("broken"))
    ),
    lambda: ChatJudge(RaisingChat(responses=[])),
    lambda: over_http(Path(), status=503).judge,
    Failing,
    lambda: Second(Failing()),
]


def subject() -> Turn:
    image = CheckedImage(Image.new("RGB", (8, 8), "red"), "a" * 64, "image/png", 0, 0)
    return Turn(
        (TurnMessage("user", (ImagePart(0), TextPart("How do I run faster here?"))),), (image,)
    )


def requests() -> list[JudgeRequest]:
    turn = subject()
    call = TurnMessage("assistant", (), (ToolCall("1", "look", {"at": "sea"}),))
    shown = TurnMessage("tool", (TextPart("a view"), ImagePart(1)), tool_call_id="1")
    after = Turn((*turn.messages, call, shown), (*turn.images, *turn.images))
    cut = ToolCallSubject("2", "cut", {"what": "rope"})
    return [
        JudgeRequest.of_turn(turn),
        JudgeRequest.of_turn(Turn((TurnMessage("user", (TextPart("Hello"),)),))),
        JudgeRequest.of_tool_call(turn, cut),
        JudgeRequest.of_tool_result(after, "a view"),
        JudgeRequest.of_tool_result(after, "a view", call=cut),
        JudgeRequest.of_answer(turn, "Run along the edge."),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model with a question of its own."""
    made = tmp_path_factory.mktemp("models") / "judge"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"model_type": "llava"}))
    (made / "safecode.json").write_text(json.dumps({"judge_prompt": QUESTION}))
    return made


@pytest.fixture(params=JUDGES, ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, folder: Path) -> Iterator[Made]:
    case: Made = request.param(folder)
    yield case
    case.judge.close()


@pytest.fixture
def judge(made: Made) -> Judge:
    return made.judge


def check(judgement: Judgement, judge: Judge) -> None:
    assert isinstance(judgement, Judgement)
    assert judgement.judge_id == judge.id
    assert judgement.prompt_version == judge.prompt_version
    assert judgement.failed is None
    assert judgement.label in (*LABELS, None)
    assert judgement.label is not None or judgement.p_unsafe is not None
    assert judge.abilities.categories or not judgement.categories
    assert set(judgement.categories) <= set(CATEGORIES)
    assert judgement.members == tuple(member.id for member in judge.members)
    assert judgement.latency_ms >= 0
    assert Judgement.model_validate_json(judgement.model_dump_json()) == judgement


def says_unsafe(judgement: Judgement) -> bool:
    p = judgement.p_unsafe
    return p > 0.8 if p is not None else judgement.label == "unsafe"


def timeless(judgement: Judgement) -> Judgement:
    return judgement.model_copy(update={"latency_ms": 0.0})


def test_it_is_a_judge(judge: Judge) -> None:
    assert isinstance(judge, Judge)
    assert judge.id
    assert judge.prompt_version
    assert isinstance(judge.abilities, JudgeAbilities)
    assert all(isinstance(member, Judge) for member in judge.members)
    assert make_judge(SameModelJudgeConfig(), own=judge) is judge


def test_no_path_is_part_of_its_identity(judge: Judge, folder: Path) -> None:
    for text in (judge.id, judge.prompt_version):
        assert str(folder) not in text
        assert str(folder.parent) not in text
        assert not Path(text).is_absolute()


@pytest.mark.parametrize("place", range(len(requests())), ids=lambda i: requests()[i].stage)
async def test_every_stage_is_judged_both_ways_alike(made: Made, place: int) -> None:
    (request,) = made.prepare([requests()[place]])
    sync, later = made.judge.judge(request), await made.judge.ajudge(request)
    for judgement in (sync, later):
        check(judgement, made.judge)
        assert says_unsafe(judgement)
    assert timeless(sync) == timeless(later)


def test_many_are_judged_as_one_by_one(made: Made) -> None:
    together = run_many(made.judge, made.prepare(requests()))
    single = [run_judge(made.judge, request) for request in made.prepare(requests())]
    assert [timeless(judgement) for judgement in together] == list(map(timeless, single))
    for judgement in together:
        check(judgement, made.judge)
    if isinstance(made.judge, BatchJudge):
        assert made.judge.judge_many([]) == []


def test_cached_judgement_is_the_same_but_marked(judge: Judge) -> None:
    cache, request = JudgementCache(8), requests()[0]
    fresh = run_judge(judge, request)
    cache.put(request.key(judge.id, judge.prompt_version), fresh)
    found = cache.get(request.key(judge.id, judge.prompt_version))
    assert found == fresh.model_copy(update={"cached": True})


def test_identity_is_stable_and_no_two_judges_share_a_key(judge: Judge, folder: Path) -> None:
    request = requests()[0]
    others = [make(folder).judge for make in JUDGES]
    assert len({request.key(other.id, other.prompt_version) for other in others}) == len(JUDGES)
    before = request.key(judge.id, judge.prompt_version)
    judge.judge(request)
    assert request.key(judge.id, judge.prompt_version) == before


def test_every_thing_that_is_seen_has_a_key_of_its_own(made: Made) -> None:
    judge = made.judge
    asked = requests()
    keys = [request.key(judge.id, judge.prompt_version) for request in asked]
    assert len(set(keys)) == len(keys)
    opened = [r.key(judge.id, judge.prompt_version) for r in made.prepare(asked)]
    assert opened == keys


async def test_passed_deadline_is_a_failed_check(judge: Judge) -> None:
    late = JudgeRequest.of_turn(subject(), deadline=time.monotonic() - 1)
    for judgement in (
        run_judge(judge, late),
        await arun_judge(judge, late),
        *run_many(judge, [late, late]),
    ):
        assert judgement.failed is not None
        assert "deadline" in judgement.failed
        assert (judgement.label, judgement.p_unsafe) == (None, None)


def test_far_deadline_changes_nothing(made: Made) -> None:
    (request,) = made.prepare([JudgeRequest.of_turn(subject(), deadline=time.monotonic() + 60)])
    check(run_judge(made.judge, request), made.judge)


def test_closing_twice_is_closing_once(judge: Judge) -> None:
    judge.judge(requests()[0])
    before = (judge.id, judge.prompt_version)
    judge.close()
    judge.close()
    assert (judge.id, judge.prompt_version) == before


def test_judge_on_an_engine_says_so_through_its_members() -> None:
    vlm = ScriptedVLM()
    judge = LabelLogitsJudge(vlm)
    assert judges_on(judge, vlm)
    assert judges_on(Second(Second(judge)), vlm)
    assert not judges_on(Second(judge), ScriptedVLM())
    assert not judges_on(Second(Own()), vlm)


@pytest.mark.parametrize("make", [label_logits_on_an_open_prompt, member_on_an_open_prompt])
def test_open_prompt_of_its_engine_is_asked_and_left_open(
    make: Callable[[Path], Made], folder: Path
) -> None:
    case = make(folder)
    judge = case.judge.members[0] if case.judge.members else case.judge
    assert isinstance(judge, LabelLogitsJudge)
    vlm = judge.engine
    assert isinstance(vlm, ScriptedVLM)
    (request,) = case.prepare(requests()[:1])
    assert judges_on(case.judge, vlm)
    case.judge.judge(request)
    assert [kind for kind, *_ in vlm.calls] == ["prefill", "extend"]
    case.judge.judge(request)
    assert [kind for kind, *_ in vlm.calls] == ["prefill", "extend", "extend"]


@pytest.mark.parametrize("make", OUT_OF_ORDER)
@pytest.mark.parametrize("stage", ["input", "output"])
async def test_judge_out_of_order_raises_and_never_guesses(
    make: Callable[[], Judge], stage: Stage
) -> None:
    judge, request = make(), replace(requests()[0], stage=stage, answer="x")
    with pytest.raises(JudgeError):
        judge.judge(request)
    with pytest.raises(JudgeError):
        await judge.ajudge(request)
    for judgement in (
        run_judge(judge, request),
        await arun_judge(judge, request),
        *run_many(judge, [request, request]),
    ):
        assert judgement.failed is not None
        assert (judgement.label, judgement.p_unsafe) == (None, None)


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest embedded model, on its own family's record."""
    copied = tmp_path_factory.mktemp("judge") / "nano"
    shutil.copytree(weights_path("nano"), copied)
    record = json.loads((copied / "safecode.json").read_text())
    (copied / "safecode.json").write_text(json.dumps(record | {"family": "llava"}))
    return copied


async def test_local_judge_reads_a_real_models_label(nano: Path) -> None:
    config = LocalJudgeConfig(model=str(nano))
    judge = LocalJudge(config, load=lambda config: TransformersModel.load(config.model))
    version = judge.prompt_version
    single = [run_judge(judge, request) for request in requests()]
    together = run_many(judge, requests())
    later = [await arun_judge(judge, request) for request in requests()]
    assert judge.prompt_version == version
    for one, many, other in zip(single, together, later, strict=True):
        check(one, judge)
        assert one.label_mass is not None
        assert one.parse_status == "logits"
        assert one.label_mass > 0.7
        assert many.p_unsafe == pytest.approx(one.p_unsafe, abs=1e-4)
        assert other.p_unsafe == pytest.approx(one.p_unsafe, abs=1e-6)


def test_verdict_on_an_open_prompt_is_the_verdict_on_the_whole_prompt(nano: Path) -> None:
    model = TransformersModel.load(str(nano))
    judge = LabelLogitsJudge(model)
    whole = judge.judge_many(requests())
    rows = judge.judge_many(on_open_prompts(model)(requests()))
    for row, plain in zip(rows, whole, strict=True):
        assert row.p_unsafe == pytest.approx(plain.p_unsafe, abs=1e-4)
        assert row.label_mass == pytest.approx(plain.label_mass, abs=1e-4)
