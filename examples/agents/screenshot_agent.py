"""An agent of 100 steps: every screenshot is judged once, when it comes."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from PIL import Image, ImageDraw
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls

from safecode_guard import JudgeRequest
from safecode_guard.testing import ScriptedJudge

STEPS, PHISHING = 100, 60
clicked: list[int] = []


def screenshot(step: int) -> dict[str, Any]:
    """Draw a page; one of them is red all over and wants a password."""
    page = Image.new("RGB", (1280, 720), "crimson" if step == PHISHING else "white")
    ImageDraw.Draw(page).text((40, 40), f"page {step}", fill="black")
    buffer = io.BytesIO()
    page.save(buffer, "JPEG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image", "base64": data, "mime_type": "image/jpeg"}


@tool
def click(step: int) -> list[dict[str, Any]]:
    """Click, and look at what comes."""
    clicked.append(step)
    return [{"type": "text", "text": f"page {step}"}, screenshot(step)]


def browse(messages: Sequence[BaseMessage]) -> AIMessage:
    """Play the agent: click through all pages."""
    step = sum(isinstance(message, ToolMessage) for message in messages)
    return (
        AIMessage("Done.")
        if step == STEPS
        else calls(("click", {"step": step}), first_id=f"{step}")
    )


def by_colour(request: JudgeRequest) -> float:
    """Play the judge: red pages are dangerous."""
    return max((float(i.pixels.getpixel((0, 0))[1] < 60) for i in request.scene.images), default=0)


guard = SafeCoDeMiddleware(ScriptedJudge(by_colour), scene_images=1)
agent = create_agent(ScriptedChatModel(replies=browse), [click], middleware=[guard])
turn = {"messages": [HumanMessage("Click through all the pages.")]}
state = agent.invoke(turn, {"recursion_limit": 9 * STEPS})
withheld = [m.tool_call_id for m in state["messages"] if "withheld" in str(m.content)]
print(f"{len(clicked)} pages, {len(verdicts_in(state))} verdicts, withheld: {withheld}")
