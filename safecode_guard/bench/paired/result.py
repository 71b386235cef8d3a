"""What a paired run found, and its JSON form, from which every report is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from safecode_guard.bench.paired.asking import Answer, Judgements
from safecode_guard.bench.paired.items import Exam
from safecode_guard.bench.paired.pace import PLAIN, Line, Pace
from safecode_guard.bench.paired.panel import NO_JUDGE
from safecode_guard.bench.paired.rows import JUDGE_ALONE, ROWS
from safecode_guard.bench.paired.scores import (
    Scores,
    difference,
    figures,
    mean,
    relative_refusals,
    score_judge,
)
from safecode_guard.pipeline.rules import label_of
from safecode_guard.policy import Thresholds

COMPARISONS: Final[tuple[tuple[Line, Line], ...]] = (
    (("guarded", "same"), PLAIN),
    (("guarded", "same"), ("paper", "same")),
    (("guarded", "nano"), ("judge_alone", "nano")),
    (("guarded", "nano"), ("paper", "nano")),
    (("guarded", "nano"), ("block", "nano")),
    (("guarded", "same"), ("naive", "same")),
    (("guarded", "light"), ("naive", "light")),
    (("guarded", "nano"), ("naive", "nano")),
    (("retry", "same"), ("guarded", "same")),
    (("retry", "same"), ("naive", "same")),
    (("retry", "nano"), ("naive", "nano")),
    (("replace", "same"), ("naive", "same")),
    (("replace", "nano"), ("naive", "nano")),
    (("guarded", "same"), ("verdict_prompt", "same")),
    (("guarded", "same"), ("guarded_modulation", "same")),
    (("guarded", "nano"), ("guarded_modulation", "nano")),
    (("guarded", "nano"), ("guarded_strong", "nano")),
    (("paper", "same"), ("modulation", "same")),
    (("paper", "same"), ("modulation_scaled", "same")),
    (("contrast", NO_JUDGE), PLAIN),
    (("guarded_contrast", NO_JUDGE), PLAIN),
    (("ras", NO_JUDGE), PLAIN),
    (("vcd", NO_JUDGE), PLAIN),
    (("adashield_s", NO_JUDGE), PLAIN),
    (("ecso", NO_JUDGE), PLAIN),
    (("guarded", "same"), ("ras", NO_JUDGE)),
    (("guarded", "ras"), ("ras", NO_JUDGE)),
    (("guarded", "same"), ("guarded", "ras")),
)
"""Differences of averages that are printed, pair by pair, where both lines were run."""


@dataclass(frozen=True)
class Result:
    """All that a run found."""

    exam: Exam
    judgements: Mapping[str, Judgements]
    """By judge."""
    answers: Mapping[Line, Mapping[str, Answer]]
    """By row and judge, then by the key of the item; none for the judge alone."""
    scores: Mapping[Line, Scores]
    paces: Mapping[Line, Pace]
    weights: Mapping[str, Mapping[str, str | int]]
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of judges that ask others: whom, in order."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON types; shares are percentages."""
        return {
            "exam": self.exam.name,
            "rows": [self._row(line) for line in self.scores],
            "judges": [self._judge(name) for name in self.judgements],
            "differences": list(self._differences()),
            "weights": {name: dict(record) for name, record in self.weights.items()},
        }

    def _row(self, line: Line) -> dict[str, Any]:
        pace, plain = self.paces.get(line), self.scores.get(PLAIN)
        scores = self.scores[line]
        return {
            "strategy": line[0],
            "judge": line[1],
            "note": ROWS[line[0]].note,
            **figures(self.exam, scores),
            "scary_refused_relative": relative_refusals(scores, plain) if plain else None,
            "seconds_per_turn": round(pace.seconds, 4) if pace else None,
            "times_plain": round(pace.ratio, 3) if pace else None,
        }

    def _judge(self, name: str) -> dict[str, Any]:
        judgements = self.judgements[name]
        scores = score_judge(self.exam, judgements)
        labels = [label_of(judgement, Thresholds()) for judgement in judgements.values()]
        looks = self.exam.of("utility")
        alarms = [label_of(judgements[item.key], Thresholds()) == "unsafe" for item in looks]
        pace = self.paces.get((JUDGE_ALONE, name))
        return {
            "judge": name,
            "pairs_safe_right": mean(scores.helped),
            "pairs_unsafe_right": mean(scores.refused),
            "pairs_average": mean(scores.average),
            "scary_right": mean(100 - scores.scary_refused),
            "undecided": mean(np.array([100.0 * (label == "undecided") for label in labels])),
            "plain_questions_called_unsafe": mean(np.array([100.0 * alarm for alarm in alarms])),
            "seconds_per_verdict": round(pace.seconds, 4) if pace else None,
            "members_asked": self._asked(name),
            "cost_of_all": self._cost(name),
        }

    def _asked(self, name: str) -> dict[str, float]:
        """Return of how many verdicts each member of a judge was asked, in percent."""
        found = self.judgements[name].values()
        asked = np.array([len(judgement.members) for judgement in found])
        return {
            member: round(100 * float((asked > place).mean()), 2)
            for place, member in enumerate(self.members.get(name, ()))
        }

    def _cost(self, name: str) -> float | None:
        """Return the members' seconds over those of always asking all, in percent.

        A member's seconds are those of its own verdicts; a cascade's median turn would hide the
        few that ask on.
        """
        asked = self._asked(name)
        paces = {member: self.paces.get((JUDGE_ALONE, member)) for member in asked}
        seconds = {member: pace.seconds for member, pace in paces.items() if pace}
        if not asked or len(seconds) < len(asked):
            return None
        spent = sum(asked[member] * seconds[member] for member in asked)
        return round(spent / sum(seconds.values()), 1)

    def _differences(self) -> Iterator[dict[str, Any]]:
        for mine, other in COMPARISONS:
            if mine in self.scores and other in self.scores:
                found = difference(self.exam, self.scores[mine], self.scores[other])
                yield {"of": " / ".join(mine), "minus": " / ".join(other), **found}
