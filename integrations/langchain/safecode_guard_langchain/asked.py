"""What a task asked before it was interrupted, from the checkpoint that it is resumed from.

LangGraph hands the answers of a resumed task out in the order in which questions are asked. A judge
that now finds otherwise would ask nothing, and the answer meant for the guard would be taken by the
tool's own question: so the ruling that asked is the one that is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_config

ASKED: Final = "safecode"
"""The key of a question under which its sealed verdict is."""

_CHECKPOINTER: Final = "__pregel_checkpointer"
_SCRATCHPAD: Final = "__pregel_scratchpad"
_TASK: Final = "__pregel_task_id"
_INTERRUPT: Final = "__interrupt__"


def entry_asked(call: Mapping[str, Any]) -> Any:
    """Return the sealed verdict with which this very task asked about a call; None: it did not."""
    mine = {"type": "tool_approval", "tool_call_id": call["id"], "name": call["name"]}
    for question in _questions():
        if isinstance(question, Mapping) and mine.items() <= question.items():
            return question.get(ASKED)
    return None


def answers_another(call: Mapping[str, Any]) -> bool:
    """Return whether the one answer that waits here was given to somebody else's question."""
    return _answers() == 1 and bool(_questions()) and entry_asked(call) is None


def _answers() -> int:
    """Return how many answers this task has been given."""
    try:
        scratchpad = get_config().get("configurable", {}).get(_SCRATCHPAD)
    except RuntimeError:  # outside of a graph
        return 0
    if scratchpad is None:
        return 0
    return len(scratchpad.resume) + (scratchpad.get_null_resume() is not None)


def _questions() -> list[Any]:
    """Return what this task asked last, if it has been answered."""
    if not _answers():
        return []
    given = get_config()["configurable"]
    saver, inside = given.get(_CHECKPOINTER), str(given.get("checkpoint_ns", ""))
    outside = inside.rpartition("|")[0]
    checkpoint = (given.get("checkpoint_map") or {}).get(outside)
    if not isinstance(saver, BaseCheckpointSaver) or checkpoint is None:
        return []
    where = {"thread_id": given.get("thread_id"), "checkpoint_ns": outside}
    found = saver.get_tuple({"configurable": {**where, "checkpoint_id": checkpoint}})
    writes = found.pending_writes if found is not None else None
    mine = [w for w in writes or () if w[0] == given.get(_TASK) and w[1] == _INTERRUPT]
    return [each.value for write in mine for each in write[2]]
