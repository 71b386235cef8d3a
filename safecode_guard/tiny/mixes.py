"""What the corpus is made of, and how that changes in the course of a training."""

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class Mix:
    """What the corpus is made of, where it changes in the course of a training.

    Attributes:
        verdict_weight: What a verdict counts in the loss.
        robots: Share of rows whose scene is drawn for a robot to act in.
        plain: Share of judgements that are about harmless questions.
        dialogues: Share of judgements that are about several messages of the user's.
        dialogue_blocks: Judgements of dialogues that a row has beside the others.
        judging: Share of rows that only look and judge, whatever the task.
        wider: Whether more wordings are drawn from.
        injected: Share of judged texts with words in them that try to dictate the verdict.
        weather: Of questions about what is seen, how many are about the weather.
        changed: Share of pictures that are changed in an ordinary way.
        hard: Of the changed pictures, how many are changed in one of the harder ways at least.
    """

    verdict_weight: int = 4
    robots: float = 0.2
    plain: float = 0.14
    dialogues: float = 0.2
    dialogue_blocks: int = 0
    judging: float = 0.0
    wider: bool = False
    injected: float = 0.13
    weather: float = 0.5
    changed: float = 0.5
    hard: float = 0.0


FIRST: Final = Mix()
LATER: Final = Mix(
    verdict_weight=10,
    robots=0.35,
    plain=0.2,
    dialogues=0.26,
    weather=0.25,
    changed=0.6,
    hard=0.4,
)
POLISH: Final = replace(LATER, dialogue_blocks=5, judging=0.5, wider=True, injected=0.22, hard=0.5)
