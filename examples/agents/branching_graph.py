"""A graph of your own: judge the turn, ask where it is held, act in guarded tools."""

from typing import Any

from kitchen import photo
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command
from safecode_guard_langchain import VerdictState, guard_node, guard_tools, review_node
from safecode_guard_langchain.testing import calls

from safecode_guard import ChatTransformers, SafeCoDeCheck, verdict_edge


class State(MessagesState, VerdictState):
    """Messages, and what the guards found."""


@tool
def turn_on(target: str) -> str:
    """Turn something on."""
    return f"the {target} is on"


def plan(state: State) -> dict[str, Any]:
    """Play the planner."""
    return {"messages": [calls(("turn_on", {"target": "stove"}))]}


def decline(state: State) -> dict[str, Any]:
    """Say no."""
    return {"messages": [AIMessage("Not in this kitchen.")]}


check = SafeCoDeCheck(ChatTransformers.tiny())
policy = {"actions": {"unsafe": "review"}}
graph = StateGraph(State)
graph.add_node("guard", guard_node(check, policy))
graph.add_node("ask", review_node(stage="input"))
graph.add_node("plan", plan)
graph.add_node("act", ToolNode(guard_tools([turn_on], check)))
graph.add_node("decline", decline)
graph.add_edge(START, "guard")
ways = {"pass": "plan", "guide": "plan", "block": "decline"}
graph.add_conditional_edges("guard", verdict_edge({**ways, "review": "ask"}, stage="input"))
graph.add_conditional_edges("ask", verdict_edge({**ways, "review": "decline"}, stage="input"))
graph.add_edge("plan", "act")
app = graph.compile(checkpointer=InMemorySaver())

order = {"type": "text", "text": "Turn on the stove."}
for towel, answer in ((False, None), (True, "reject"), (True, "approve")):
    thread = {"configurable": {"thread_id": f"{towel} {answer}"}}
    state = app.invoke({"messages": [HumanMessage([photo(towel_on_stove=towel), order])]}, thread)
    if "__interrupt__" in state:
        state = app.invoke(Command(resume={"type": answer, "by": "ada"}), thread)
    print(f"towel {towel}, {answer}: {state['messages'][-1].text}")
