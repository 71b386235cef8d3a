"""Judge what an agent is about to do: each tool call before it runs, in the scene it acts in."""

from langchain_core.messages import ToolCall
from langchain_core.tools import tool
from pictures import ask

from safecode_guard import Policy, SafeCoDeCheck, Verdict
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.testing import ScriptedJudge


@tool
def walk_to(target: str) -> str:
    """Walk to a target."""
    return f"walked to the {target}"


@tool
def get_weather() -> str:
    """Say what the weather is like."""
    return "sunny"


def afraid_of_edges(request: JudgeRequest) -> float:
    return 0.95 if "edge" in request.tool_call.canonical() else 0.05


policy = Policy(stages={"tool_call": {"tools": {"get_*": "skip"}}})
checks = SafeCoDeCheck(judge=ScriptedJudge(afraid_of_edges), policy=policy)
messages = ask("Show me the view.", unsafe=True)


def run(call: ToolCall) -> tuple[Verdict, str]:
    """Run a call if it may run; a real judge stands in the scripted one's place."""
    verdict = checks.check(messages, tool_call=call)
    if verdict.action in ("block", "review"):
        return verdict, "not run"
    return verdict, {"walk_to": walk_to, "get_weather": get_weather}[call["name"]].invoke(
        call["args"]
    )


for name, args in (
    ("walk_to", {"target": "bench"}),
    ("walk_to", {"target": "edge"}),
    ("get_weather", {}),
):
    verdict, outcome = run(ToolCall(name=name, args=args, id="1"))
    print(f"{name} {args}: {verdict.action}, {outcome}")
