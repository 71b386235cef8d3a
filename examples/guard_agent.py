"""Guard an agent: a dangerous call is not run, an uncertain one waits for a person."""

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pictures import ask
from safecode_guard_langchain import SafeCoDeMiddleware, verdicts_in
from safecode_guard_langchain.testing import ScriptedChatModel, calls

from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.testing import ScriptedJudge

walked = []


@tool
def walk_to(target: str) -> str:
    """Walk to a target."""
    walked.append(target)
    return f"You are at the {target}."


def afraid_of_edges(request: JudgeRequest) -> float:
    """Judge by the target of the walk; a real judge looks at the picture as well."""
    if request.tool_call is None:
        return 0.05
    return {"bench": 0.05, "fence": 0.5, "edge": 0.95}[request.tool_call.arguments["target"]]


steps = [calls(*[("walk_to", {"target": each}) for each in ("bench", "fence", "edge")]), "Done."]
agent = create_agent(
    ScriptedChatModel(replies=steps),  # a real model stands in its place
    [walk_to],
    middleware=[SafeCoDeMiddleware(ScriptedJudge(afraid_of_edges))],
    checkpointer=InMemorySaver(),
)
thread = {"configurable": {"thread_id": "1"}}

state = agent.invoke({"messages": ask("Show me the view.", unsafe=False)}, thread)
[question] = state["__interrupt__"]
print("asks:", question.value["name"], question.value["args"])

state = agent.invoke(Command(resume={"type": "reject", "message": "Not the fence."}), thread)
for message in state["messages"]:
    if message.type == "tool":
        print("tool:", message.status, "-", message.text)
print("walked to:", walked)
print("verdicts:", [f"{each.stage} {each.action}" for each in verdicts_in(state)])
