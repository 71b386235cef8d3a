"""What the tests share: pictures, tools with side effects, judges by rule, forms of a run."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, StructuredTool
from PIL import Image
from safecode_guard_langchain.testing import ScriptedChatModel

from safecode_guard import JudgeRequest
from safecode_guard.testing import ScriptedJudge

FORMS = ("invoke", "ainvoke", "stream", "astream")
UNSAFE = "crimson"
"""The colour of what the judges of these tests find dangerous."""


@cache
def png(colour: str, size: tuple[int, int] = (24, 24)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def picture(colour: str = "navy") -> dict[str, Any]:
    return {"type": "image", "base64": png(colour), "mime_type": "image/png"}


def user(text: str = "Go on.", *colours: str, id: str | None = None) -> HumanMessage:
    return HumanMessage([*map(picture, colours), {"type": "text", "text": text}], id=id)


def colours(request: JudgeRequest) -> set[tuple[int, ...]]:
    """Return the colours of the pictures that a judge is shown."""
    return {image.pixels.getpixel((0, 0)) for image in request.scene.images}


def shows(request: JudgeRequest, colour: str) -> bool:
    return Image.new("RGB", (1, 1), colour).getpixel((0, 0)) in colours(request)


def judge_of(
    *,
    calls: Callable[[str, dict[str, Any]], Any] = lambda name, args: 0.1,
    pictures: bool = True,
    answers: Callable[[str], Any] = lambda text: 0.1,
    results: Callable[[str], Any] = lambda text: 0.1,
) -> ScriptedJudge:
    """Return a judge by rules: of calls, answers, results, and of crimson pictures where shown."""

    def answer(request: JudgeRequest) -> Any:
        if request.stage == "tool_call":
            assert request.tool_call is not None
            return calls(request.tool_call.name, request.tool_call.arguments)
        if request.stage == "output":
            return answers(request.answer or "")
        if pictures and shows(request, UNSAFE):
            return 0.95
        return results(request.result or "") if request.stage == "tool_result" else 0.1

    return ScriptedJudge(answer)


def asked(judge: ScriptedJudge, stage: str) -> list[JudgeRequest]:
    return [request for request in judge.requests if request.stage == stage]


@dataclass
class Disk:
    """Tools whose runs leave a file each: what did not run, left nothing."""

    folder: Path
    shown: list[str] = field(default_factory=list)

    def tool(self, name: str = "act", gives: Any = None, **fields: Any) -> BaseTool:
        def act(**kwargs: Any) -> Any:
            return self.do(name, kwargs, gives)

        async def aact(**kwargs: Any) -> Any:
            return self.do(name, kwargs, gives)

        schema = {
            "type": "object",
            "properties": {"x": {"type": "integer"}},
        }
        return StructuredTool(
            name=name,
            description=f"Does {name}.",
            args_schema=schema,
            func=act,
            coroutine=aact,
            **fields,
        )

    def do(self, name: str, kwargs: dict[str, Any], gives: Any) -> Any:
        number = len(list(self.folder.iterdir()))
        (self.folder / f"{name}-{kwargs.get('x')}-{number}").touch()
        return gives(**kwargs) if callable(gives) else gives or f"did {name} {kwargs.get('x')}"

    @property
    def ran(self) -> list[str]:
        return sorted(path.name.rsplit("-", 1)[0] for path in self.folder.iterdir())


def run_in(
    form: str, agent: Any, given: Any, config: dict[str, Any] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Run an agent in one of the four forms, and return its last state."""
    if form == "invoke":
        return agent.invoke(given, config, **kwargs)
    if form == "ainvoke":
        return asyncio.run(agent.ainvoke(given, config, **kwargs))
    if form == "stream":
        states = list(agent.stream(given, config, stream_mode="values", **kwargs))
        return states[-1]

    async def all_states() -> list[Any]:
        streamed = agent.astream(given, config, stream_mode="values", **kwargs)
        return [state async for state in streamed]

    return asyncio.run(all_states())[-1]


def script(*replies: Any) -> ScriptedChatModel:
    """Return a model by script, each of its answers with an id of its own."""
    named = [AIMessage(reply) if isinstance(reply, str) else reply for reply in replies]
    return ScriptedChatModel(
        replies=[
            reply.model_copy(update={"id": reply.id or f"ai-{n}"})
            if isinstance(reply, AIMessage)
            else reply
            for n, reply in enumerate(named)
        ]
    )


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.text) for message in messages]


def shown_to(model: ScriptedChatModel, colour: str) -> bool:
    """Return whether a model was ever shown a picture."""
    return any(png(colour) in str(m.content) for messages in model.shown for m in messages)
