"""What a model is shown beside its conversation, and what changes in place: judged as shown."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.messages import HumanMessage
from safecode_guard_langchain import SafeCoDeMiddleware, guard_tools
from safecode_guard_langchain.testing import calls
from support import UNSAFE, Disk, asked, judge_of, picture, png, run_in, script, shown_to, shows

from safecode_guard import Policy
from safecode_guard.testing import ScriptedJudge

URL = f"data:image/png;base64,{png(UNSAFE)}"


class Changes(AgentMiddleware):
    """A middleware that does something to a request just before the model is called."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self.change(request) or request)

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.change(request) or request)


def camera(request: Any) -> Any:
    frame = HumanMessage([picture(UNSAFE), {"type": "text", "text": "what the camera sees"}])
    return request.override(messages=[*request.messages, frame])


def where_crimson(*stages: str) -> ScriptedJudge:
    """Return a judge that finds a stage dangerous where crimson is in sight."""
    return ScriptedJudge(lambda r: 0.9 if r.stage in stages and shows(r, UNSAFE) else 0.1)


@pytest.mark.parametrize("guard_first", [True, False])
def test_a_call_is_judged_in_the_scene_that_the_model_was_shown(
    guard_first: bool, form: str, disk: Disk
) -> None:
    guard, other = SafeCoDeMiddleware(where_crimson("tool_call")), Changes(camera)
    order = [guard, other] if guard_first else [other, guard]
    model = script(calls(("act", {"x": 1})), "Done.")
    run_in(form, create_agent(model, [disk.tool()], middleware=order), given("Turn it on."))
    assert disk.ran == []


@pytest.mark.parametrize("guard_first", [True, False])
def test_an_answer_is_judged_in_the_scene_that_the_model_was_shown(
    guard_first: bool, form: str
) -> None:
    guard, other = SafeCoDeMiddleware(where_crimson("output")), Changes(camera)
    order = [guard, other] if guard_first else [other, guard]
    state = run_in(form, create_agent(script("It is safe."), middleware=order), given("Is it?"))
    assert state["messages"][-1].content == Policy().refusal_text


def test_a_guarded_tool_beside_the_middleware_is_judged_in_it_as_well(
    form: str, disk: Disk
) -> None:
    tools = guard_tools([disk.tool()], where_crimson("tool_call"))
    guard = SafeCoDeMiddleware(judge_of(pictures=False), apply_to_tool_calls=False)
    order = [guard, Changes(camera)]
    model = script(calls(("act", {"x": 1})), "Done.")
    run_in(form, create_agent(model, tools, middleware=order), given("Turn it on."))
    assert disk.ran == []


def test_what_was_shown_counts_for_the_newest_answer_alone(form: str, disk: Disk) -> None:
    def first_only(request: Any) -> Any:
        return camera(request) if len(request.messages) == 1 else None

    judge = judge_of(pictures=False)
    order = [SafeCoDeMiddleware(judge), Changes(first_only)]
    model = script(calls(("act", {"x": 1})), calls(("act", {"x": 2}), first_id="b"), "Done.")
    run_in(form, create_agent(model, [disk.tool()], middleware=order), given("Turn it on."))
    assert [len(r.scene.images) for r in asked(judge, "tool_call")] == [1, 0]


def given(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def openai() -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png('navy')}"}}


def anthropic() -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": png("navy")}
    return {"type": "image", "source": source}


def redden(block: dict[str, Any]) -> None:
    if "image_url" in block:
        block["image_url"]["url"] = URL
    elif "source" in block:
        block["source"]["data"] = png(UNSAFE)
    else:
        block["base64"] = png(UNSAFE)


CHANGES = {
    "nested": lambda content: redden(content[0]),
    "appended": lambda content: content.append({"type": "image_url", "image_url": {"url": URL}}),
    "replaced": lambda content: content.__setitem__(0, picture(UNSAFE)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("block", [picture, openai, anthropic])
def test_a_message_that_is_changed_in_place_is_looked_at_again(
    block: Any, change: str, form: str
) -> None:
    model = script("Hi.")
    inner = Changes(lambda request: CHANGES[change](request.messages[0].content))
    guard = SafeCoDeMiddleware(judge_of(), apply_to_output=False)
    agent = create_agent(model, middleware=[guard, inner])
    turn = HumanMessage([block(), {"type": "text", "text": "hi"}])
    state = run_in(form, agent, {"messages": [turn]})
    assert model.shown == []
    assert state["messages"][-1].content == Policy().refusal_text


@pytest.mark.parametrize("content", ["hi", [{"type": "text", "text": URL}]])
def test_text_that_becomes_a_picture_is_looked_at(content: Any, form: str) -> None:
    def change(request: Any) -> None:
        request.messages[0].content = [{"type": "image_url", "image_url": {"url": URL}}]

    model = script("Hi.")
    guard = SafeCoDeMiddleware(judge_of(), apply_to_output=False)
    agent = create_agent(model, middleware=[guard, Changes(change)])
    run_in(form, agent, {"messages": [HumanMessage(content)]})
    assert not shown_to(model, UNSAFE)
