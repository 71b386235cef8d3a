"""Guards agents that see, all the way round the loop: LangChain, deep agents, LangGraph."""

from safecode_guard_langchain.middleware import SafeCoDeMiddleware
from safecode_guard_langchain.nodes import goto_by_action, guard_node, review_node
from safecode_guard_langchain.scene import within_scene
from safecode_guard_langchain.state import VerdictState, merge_verdicts, verdicts_in
from safecode_guard_langchain.tools import GuardedTool, UnmatchedToolWarning, guard_tools

__all__ = [
    "GuardedTool",
    "SafeCoDeMiddleware",
    "UnmatchedToolWarning",
    "VerdictState",
    "goto_by_action",
    "guard_node",
    "guard_tools",
    "merge_verdicts",
    "review_node",
    "verdicts_in",
    "within_scene",
]
