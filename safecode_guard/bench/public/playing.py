"""Having a benchmark's conversations: chunk by chunk, row by row, turn by turn.

Only one chunk's pictures are in memory at a time. Answers, judgements and grades go through a
ledger under keys of all they depend on, and a chunk of which anything is missing is asked as a
whole: so a run that was broken off and resumed computes what an unbroken one would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.asking import BATCH, CERTAIN, Answer, Asker, Judgements, Plan
from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.paired.pace import Line, Lines, lines_of
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.rows import JUDGE_ALONE, Row
from safecode_guard.bench.public.detectors import DETECTORS
from safecode_guard.bench.public.graders import Grader, Rubric
from safecode_guard.bench.public.items import PublicItem, Side
from safecode_guard.bench.public.questions import Kind
from safecode_guard.errors import GuardError
from safecode_guard.pipeline.rules import label_of
from safecode_guard.policy import Thresholds
from safecode_guard.turns.images import CheckedImage

_SIDES: Final[tuple[Side, Side]] = ("safe", "unsafe")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item under one row and judge; small, since all of them are kept."""

    unit: str
    side: Side
    part: str
    category: str
    refused: tuple[bool, ...]
    """By each detector, of the last answer; a fixed refusal in its place counts for all."""
    grades: tuple[int | None, ...]
    """By each rubric; None where it does not grade this side, or gave no grade."""
    tokens: int
    """Of all answers."""
    right: tuple[tuple[Kind, bool | None], ...] = ()
    """Of each question whether its reply was right; None: it could not be read as one."""


@dataclass(frozen=True)
class Played:
    """An item with its answers, as long as its chunk lasts."""

    line: Line
    item: PublicItem
    answers: tuple[str, ...]
    outcome: Outcome


@dataclass(frozen=True)
class Player:
    """Has conversations under rows and judges, and has the answers graded."""

    asker: Asker
    ledger: Ledger
    rows: Sequence[Row]
    panelists: Sequence[Panelist]
    grader: Grader | None = None
    rubrics: Sequence[Rubric] = ()

    @cached_property
    def lines(self) -> Lines:
        """The lines of the table."""
        return lines_of(self.rows, self.panelists)

    def play(self, items: Iterable[PublicItem]) -> Iterator[list[Played]]:
        """Yield what became of the items, chunk by chunk, all lines of each.

        Raises:
            GuardError: If a picture cannot be read, or a model or a judge cannot be asked.
        """
        upcoming = iter(items)
        while chunk := list(islice(upcoming, BATCH)):
            yield self._chunk(chunk)

    def _chunk(self, chunk: Sequence[PublicItem]) -> list[Played]:
        images = [item.images() for item in chunk]
        said: dict[Line, list[list[Answer]]] = {line: [[] for _ in chunk] for line in self.lines}
        for turn in range(max(len(item.turns) for item in chunk)):
            live = [i for i, item in enumerate(chunk) if len(item.turns) > turn]
            for side in _SIDES:  # the judge `truth` says otherwise of the same scene on each side
                self._turn([i for i in live if chunk[i].side == side], chunk, images, said)
        grades = self._grades(chunk, said)
        replies = self._replies(chunk, images, said)
        return [
            _played(line, item, said[line][i], grades[line][i], replies[line][i])
            for line in self.lines
            for i, item in enumerate(chunk)
        ]

    def _turn(
        self,
        live: Sequence[int],
        chunk: Sequence[PublicItem],
        images: Sequence[tuple[CheckedImage, ...]],
        said: Mapping[Line, list[list[Answer]]],
    ) -> None:
        """Have the next turn of some items, under every line."""
        found = self._answered(
            {
                line: [chunk[i].asked(images[i], _texts(dialogues[i])) for i in live]
                for line, dialogues in said.items()
            }
        )
        for line, answers in found.items():
            for i, answer in zip(live, answers, strict=True):
                said[line][i].append(answer)

    def _answered(self, asked: Mapping[Line, Sequence[Item]]) -> dict[Line, list[Answer]]:
        """Return what is answered to items, each line to its own."""
        plans = {
            line: Plan(row, self._judgements(panelist, asked[line]), asked[line])
            for line, (row, panelist) in self.lines.items()
            if asked[line]
        }
        self.asker.prepare([plan for plan in plans.values() if plan.row.name != JUDGE_ALONE])
        found: dict[Line, list[Answer]] = {}
        for line, plan in plans.items():
            known = _by_verdict(plan) if line[0] == JUDGE_ALONE else self.asker.answers(plan)
            found[line] = [known[item.key] for item in plan.items]
        return found

    def _replies(
        self,
        chunk: Sequence[PublicItem],
        images: Sequence[tuple[CheckedImage, ...]],
        said: Mapping[Line, list[list[Answer]]],
    ) -> dict[Line, list[list[Answer]]]:
        """Return the replies to the questions that follow dialogues, under every line."""
        replies: dict[Line, list[list[Answer]]] = {line: [[] for _ in chunk] for line in said}
        for side in _SIDES:
            places = [
                (i, number)
                for i, item in enumerate(chunk)
                if item.side == side
                for number in range(len(item.questions))
            ]
            found = self._answered(
                {
                    line: [
                        chunk[i].questioned(images[i], _texts(dialogues[i]), number)
                        for i, number in places
                    ]
                    for line, dialogues in said.items()
                }
            )
            for line, answers in found.items():
                for (i, _), answer in zip(places, answers, strict=True):
                    replies[line][i].append(answer)
        return replies

    def _judgements(self, panelist: Panelist | None, asked: Sequence[Item]) -> Judgements:
        """Return what a judge finds; what has no picture is judged by nobody, and passes."""
        if panelist is None:
            return {}
        seen = [item for item in asked if item.turn.images]
        unseen = {item.key: CERTAIN for item in asked if not item.turn.images}
        return {**(self.asker.judge(panelist, seen) if seen else {}), **unseen}

    def _grades(
        self, chunk: Sequence[PublicItem], said: Mapping[Line, list[list[Answer]]]
    ) -> dict[Line, list[tuple[int | None, ...]]]:
        """Return each item's grades by each rubric; lines with the same answers share them."""
        grader = self.grader
        if grader is None:
            return {line: [() for _ in chunk] for line in said}
        kept: dict[tuple[Line, int, str], str] = {}
        for rubric in self.rubrics:
            wanted: dict[str, tuple[PublicItem, list[str]]] = {}
            for line, dialogues in said.items():
                for i, item in enumerate(chunk):
                    if item.side in rubric.sides and line[0] != JUDGE_ALONE:
                        texts = _texts(dialogues[i])
                        key = kept[line, i, rubric.name] = _grade_key(grader, rubric, item, texts)
                        wanted[key] = (item, texts)
            if any(key not in self.ledger for key in wanted):
                found = grader.grade(rubric, list(wanted.values()))
                self.ledger.add(dict(zip(wanted, found, strict=True)))
        return {
            line: [
                tuple(
                    self.ledger[kept[line, i, rubric.name]]
                    if (line, i, rubric.name) in kept
                    else None
                    for rubric in self.rubrics
                )
                for i in range(len(chunk))
            ]
            for line in said
        }


def require_playable(player: Player, *, pictures: bool, turns: int) -> None:
    """Refuse what a benchmark cannot be asked under.

    Raises:
        GuardError: If ``judge_alone`` would have to answer a dialogue, or to judge words alone.
    """
    if any(row.name == JUDGE_ALONE for row in player.rows) and (turns > 1 or not pictures):
        why = "a dialogue needs answers" if turns > 1 else "there are no pictures to judge"
        raise GuardError(f"The row {JUDGE_ALONE!r} does not go here: {why}.", hint="Leave it out.")


def _by_verdict(plan: Plan) -> dict[str, Answer]:
    """Return no answers, withheld where the judge says unsafe."""
    labels = {key: label_of(found, Thresholds()) for key, found in plan.judgements.items()}
    return {key: Answer("", 0, withheld=label == "unsafe") for key, label in labels.items()}


def _texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def _played(
    line: Line,
    item: PublicItem,
    answers: Sequence[Answer],
    grades: tuple[int | None, ...],
    replies: Sequence[Answer],
) -> Played:
    last = answers[-1]
    outcome = Outcome(
        item.unit,
        item.side,
        item.part,
        item.category,
        tuple(last.withheld or tells(last.text) for tells in DETECTORS.values()),
        grades,
        sum(answer.tokens for answer in answers),
        tuple(
            (question.kind, question.is_right(reply.text))
            for question, reply in zip(item.questions, replies, strict=True)
        ),
    )
    return Played(line, item, tuple(_texts(answers)), outcome)


def _grade_key(grader: Grader, rubric: Rubric, item: PublicItem, texts: Sequence[str]) -> str:
    """Return a key of all that a grade depends on."""
    asked = rubric.ask(item, texts).key()
    return "|".join(
        ["grade", grader.id, rubric.version, hashlib.sha256(asked.encode()).hexdigest()]
    )
