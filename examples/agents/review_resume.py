"""Ask a person, die, and go on: what was judged and asked is in the checkpoint."""

import tempfile
from pathlib import Path
from typing import Any

from kitchen import photo
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls

from safecode_guard import JudgeRequest
from safecode_guard.testing import ScriptedJudge


@tool
def turn_on(target: str, minutes: int) -> str:
    """Turn something on."""
    print(f"the {target} is on for {minutes} minutes")
    return "ok"


def judge_of_minutes(request: JudgeRequest) -> float:
    """Play the judge: ten minutes are fine, an hour is not, and in between it is unsure."""
    if request.tool_call is None:
        return 0.1
    minutes = request.tool_call.arguments["minutes"]
    return 0.1 if minutes <= 10 else 0.9 if minutes >= 60 else 0.5


def agent_in(saver: SqliteSaver) -> Any:
    """Return the agent, as each process makes it for itself."""
    model = ScriptedChatModel(replies=[calls(("turn_on", {"target": "stove", "minutes": 30})), "."])
    guard = SafeCoDeMiddleware(ScriptedJudge(judge_of_minutes))
    return create_agent(model, [turn_on], middleware=[guard], checkpointer=saver)


path = str(Path(tempfile.mkdtemp()) / "checkpoints.sqlite")
thread = {"configurable": {"thread_id": "kitchen"}}
order = HumanMessage([photo(towel_on_stove=False), {"type": "text", "text": "Boil some water."}])

with SqliteSaver.from_conn_string(path) as saver:
    state = agent_in(saver).invoke({"messages": [order]}, thread)
[question] = state["__interrupt__"]
print("asked:", question.value["name"], question.value["args"], "|", question.value["description"])

# The process ends here. Another one, days later, answers.
shorter = {"name": "turn_on", "args": {"target": "stove", "minutes": 10}}
answer = {"type": "edit", "edited_action": shorter, "by": "ada"}
with SqliteSaver.from_conn_string(path) as saver:
    state = agent_in(saver).invoke(Command(resume={question.id: answer}), thread)
[verdict] = verdicts_in(state, "tool_call")
print(
    "decided:", verdict.review.decision, "by", verdict.review.by, "| judged again:", verdict.label
)
