"""The closed vocabularies of the library: labels, actions, stages, hazard categories."""

from __future__ import annotations

from typing import Final, Literal, get_args

Label = Literal["safe", "unsafe", "undecided"]
"""What a judge says of a scene and a request. A failed judge has no label at all."""

Action = Literal["pass", "guide", "review", "block"]
"""What the guard does with a turn, from the mildest to the most severe."""

Stage = Literal["input", "tool_call", "tool_result", "output"]
"""What was judged: the user's turn, a tool call, a tool's result, or the finished answer."""

Category = Literal[
    "violent_crimes",
    "non_violent_crimes",
    "sex_related_crimes",
    "child_sexual_exploitation",
    "defamation",
    "specialized_advice",
    "privacy",
    "intellectual_property",
    "indiscriminate_weapons",
    "hate",
    "suicide_self_harm",
    "sexual_content",
    "elections",
    "code_interpreter_abuse",
    "situational",
]
"""Hazards: the MLCommons AILuminate names, and ``situational``: harmless words, dangerous scene."""

LABELS: Final[tuple[Label, ...]] = get_args(Label)
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)


def severity(action: Action) -> int:
    """Rank of an action, 0 for ``pass`` to 3 for ``block``."""
    return ACTIONS.index(action)
