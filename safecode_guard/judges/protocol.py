"""What a judge is asked, and what it must be able to do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

from safecode_guard.errors import JudgeError, UnreadableCall
from safecode_guard.models.protocol import Engine, Session
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.artifacts import images_in
from safecode_guard.turns.scene import SCENE_IMAGES, Scene, scene_of
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement


@dataclass(frozen=True)
class OpenPrompt:
    """The prompt of a guarded turn that is open already.

    A judge on the same engine asks its question there, so that what both prompts share, pictures
    included, is computed once. To every other judge it is of no use.
    """

    engine: Engine
    session: Session
    index: int
    """Of the session's turn."""


@dataclass(frozen=True)
class ToolCallSubject:
    """A tool call that is to be judged before it runs."""

    id: str
    name: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, call: Mapping[str, Any]) -> Self:
        """Read a tool call in LangChain's form: name, args, id.

        Raises:
            UnreadableCall: If it has no name, or its arguments are no mapping, hold a picture,
                refer to themselves, or are nested beyond reason.
        """
        if not isinstance(call, Mapping):
            raise UnreadableCall(
                f"A tool call is given as {type(call).__name__}.",
                hint="Give it as {'name': ..., 'args': {...}}.",
            )
        name, arguments = call.get("name"), call.get("args") or {}
        if not isinstance(name, str) or not name:
            raise UnreadableCall("The tool call has no name.", hint="Give it 'name' and 'args'.")
        if not isinstance(arguments, Mapping):
            raise UnreadableCall(
                f"The arguments of the call of {name[:40]!r} are no mapping.",
                hint="Give them as {name: value}.",
            )
        made = cls(str(call.get("id") or ""), name, _copied(arguments))
        made.canonical()
        if images_in(made.arguments):
            raise UnreadableCall(
                f"The arguments of the call of {name[:40]!r} hold a picture.",
                hint="Send it as a block of a message, and name it in the call.",
            )
        return made

    def canonical(self) -> str:
        """Return name and arguments in the one form that is shown, hashed and cached.

        Two calls that differ never have the same: JSON, once begun, cannot end elsewhere.
        """
        return f"{self.name} {canonical_json(self.arguments)}"

    def args_sha256(self) -> str:
        """Return the sha256 of name and canonical arguments: what the verdict is bound to."""
        return hashlib.sha256(self.canonical().encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class JudgeRequest:
    """One thing to judge: a turn, a tool call, a tool's result or a finished answer, in its scene.

    Example:
        >>> JudgeRequest.of_tool_call(turn, ToolCallSubject.of(call))    # doctest: +SKIP
    """

    stage: Stage
    scene: Scene
    tool_call: ToolCallSubject | None = None
    """The call that is about to run, at stage ``tool_call``; what led to a result, if known."""
    result: str | None = None
    """The text that a tool returned, at stage ``tool_result``."""
    answer: str | None = None
    """The finished text, at stage ``output``, with its tool calls in canonical form."""
    deadline: float | None = None
    """In seconds of ``time.monotonic``."""
    prompt: OpenPrompt | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of_turn(
        cls, turn: Turn, *, images: int = SCENE_IMAGES, deadline: float | None = None
    ) -> Self:
        """Return the request to judge a user's turn."""
        return cls("input", scene_of(turn, most=images), deadline=deadline)

    @classmethod
    def of_tool_call(
        cls,
        turn: Turn,
        call: ToolCallSubject,
        *,
        images: int = SCENE_IMAGES,
        deadline: float | None = None,
    ) -> Self:
        """Return the request to judge a tool call; the message that makes it is not shown."""
        scene = scene_of(turn, most=images)
        return cls("tool_call", scene, tool_call=call, deadline=deadline)

    @classmethod
    def of_tool_result(
        cls,
        turn: Turn,
        text: str,
        *,
        call: ToolCallSubject | None = None,
        images: int = SCENE_IMAGES,
        deadline: float | None = None,
    ) -> Self:
        """Return the request to judge what a tool returned; its pictures stand in the turn."""
        scene = scene_of(turn, most=images)
        return cls("tool_result", scene, tool_call=call, result=text, deadline=deadline)

    @classmethod
    def of_answer(
        cls, turn: Turn, answer: str, *, images: int = SCENE_IMAGES, deadline: float | None = None
    ) -> Self:
        """Return the request to judge a finished answer; its pictures stand in the turn."""
        return cls("output", scene_of(turn, most=images), answer=answer, deadline=deadline)

    def key(self, judge_id: str, prompt_version: str) -> str:
        """Return the sha256 under which a judgement of this request may be cached.

        It covers what the judge saw and who it was, and nothing else. A call's id is no part of
        it: the same call is judged once.
        """
        call = self.tool_call.canonical() if self.tool_call else None
        seen = [self.stage, self.scene.digest, call, self.result, self.answer]
        text = canonical_json([*seen, judge_id, prompt_version])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class JudgeAbilities:
    """What a judge can do."""

    categories: bool = False
    """It names hazards."""
    honours_deadline: bool = False
    """It gives up at a request's deadline by itself, so that no thread has to be kept for it."""
    batches: bool = False
    """Its ``judge_many`` is one pass of a model in this process: cheaper than one by one, and
    blocking."""
    sees_images: bool = True
    """It looks at the pictures; False: at a caption or the words alone, and it says so."""


@runtime_checkable
class Judge(Protocol):
    """Anything that can judge a request. `BaseJudge` has all of it but ``id`` and ``judge``.

    A judge raises `JudgeError` when the check itself fails, and never guesses: a reply that it
    cannot read is a failed check, too.
    """

    @property
    def id(self) -> str:
        """Name and a digest of weights or configuration, never a path."""

    @property
    def prompt_version(self) -> str:
        """Of what is really asked; it enters the cache's key."""

    @property
    def abilities(self) -> JudgeAbilities:
        """What the judge can do."""

    @property
    def members(self) -> tuple[Judge, ...]:
        """Of a judge that asks others; each is given the request as it is."""

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request."""

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request without blocking the event loop."""

    def close(self) -> None:
        """Free what the judge holds: connections, weights."""


class BaseJudge:
    """The parts of a judge that most have in common.

    Example:
        >>> class Cautious(BaseJudge):
        ...     id = "cautious-1"
        ...     def judge(self, request):
        ...         return Judgement(judge_id=self.id, prompt_version="1", p_unsafe=1.0)
    """

    id: str
    prompt_version: str = "1"
    abilities: JudgeAbilities = JudgeAbilities()
    members: tuple[Judge, ...] = ()

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request; what a judge has to write itself."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it judges.")

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request in a worker thread.

        Raises:
            JudgeError: For a `StopIteration`, too, which would leave its waiter waiting for ever.
        """
        return await asyncio.to_thread(self._judge_or_raise, request)

    def _judge_or_raise(self, request: JudgeRequest) -> Judgement:
        try:
            return self.judge(request)
        except StopIteration as error:
            raise JudgeError("The judge ran out of something.") from error

    def close(self) -> None:
        """Free nothing: there is nothing held."""


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that is cheaper on many requests at once."""

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests, in order."""


def judges_on(judge: Judge, engine: object) -> bool:
    """Return whether a judge, or one of its members, asks its questions on an engine."""
    if getattr(judge, "engine", None) is engine:
        return True
    return any(judges_on(member, engine) for member in judge.members)


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values, whatever they are and however deep.

    Keys are written as text and sorted by it; what JSON has no form for is written by ``repr``.
    Letters of all scripts stay as they are: a judge is shown this text, and has to read it.

    Raises:
        UnreadableCall: If the value refers to itself, is nested beyond reason, or has two keys
            that are written alike.
    """
    try:
        return json.dumps(
            _plain(value), sort_keys=True, separators=(",", ":"), default=repr, ensure_ascii=False
        )
    except RecursionError as error:
        raise _nested_call() from error


def _nested_call() -> UnreadableCall:
    return UnreadableCall(
        "The tool call's arguments refer to themselves, or are nested beyond reason.",
        hint="Send flatter arguments.",
    )


def _copied(value: Any) -> Any:
    """Return data of its own: what was judged must not change before the verdict is bound to it."""
    try:
        if isinstance(value, Mapping):
            return {key: _copied(item) for key, item in value.items()}
        return [_copied(item) for item in value] if isinstance(value, list | tuple) else value
    except RecursionError as error:
        raise _nested_call() from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {_key(key): _plain(item) for key, item in value.items()}
        if len(plain) < len(value):  # one of them would be shown to nobody
            raise UnreadableCall(
                "Two arguments of the tool call are written alike.", hint="Name them by strings."
            )
        return plain
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _key(key: Any) -> str:
    """Write a key as text; 1 and "1" stay apart."""
    return key if isinstance(key, str) else f"{type(key).__name__}:{key!r}"
