"""Judges that ask others: one after another, all of them, or the next if one fails.

A member on the guarded model keeps its open prompt: it is given the request as it is. Members are
asked so that none of them can break the others, and a check that failed is never outvoted into a
pass: it fails the whole, unless the rule says that it may be missing.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from safecode_guard.errors import PolicyError
from safecode_guard.judges.failsafe import arun_judge, run_many
from safecode_guard.judges.protocol import BaseJudge, Judge, JudgeAbilities, JudgeRequest
from safecode_guard.verdict import Judgement

Rule = Literal["any", "majority", "mean", "log_odds"]
"""How an ensemble's probabilities become one: the largest, the share of members that find the
request unsafe, their weighted mean, or the weighted mean of their log-odds."""

Found = list[Judgement]
"""What members found of one request so far, in the order in which they were asked."""

_SURE: Final = 1e-6
"""Keeps the log-odds of a member that is quite sure finite."""


class CombinedJudge(BaseJudge):
    """What all judges over others have in common: who is asked next, and what comes of it."""

    def __init__(self, members: Sequence[Judge], *, kind: str, options: Mapping[str, Any]) -> None:
        """Take the members.

        Raises:
            PolicyError: If there are fewer than two, or one of them is none.
        """
        lacking = [type(m).__name__ for m in members if not isinstance(m, Judge)]
        if lacking or len(members) < 2:
            raise PolicyError(
                f"A {kind} judge needs two judges or more, not {lacking or len(members)}.",
                hint="Pass judge objects, or list their configurations under judge.members.",
            )
        self.members = tuple(members)
        self._kind = kind
        self._options = repr(sorted(options.items()))

    @property
    def id(self) -> str:  # type: ignore[override]  # it follows the members'
        """The kind, with a digest of the members' ids and the rule."""
        text = "|".join([self._options, *(member.id for member in self.members)])
        return f"{self._kind}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def prompt_version(self) -> str:  # type: ignore[override]
        """The members', in order."""
        return "+".join(member.prompt_version for member in self.members)

    @property
    def abilities(self) -> JudgeAbilities:  # type: ignore[override]
        """What any member brings to the whole, and only what all of them honour."""
        abilities = [member.abilities for member in self.members]
        return JudgeAbilities(
            categories=any(one.categories for one in abilities),
            honours_deadline=all(one.honours_deadline for one in abilities),
            batches=all(one.batches for one in abilities),
            sees_images=any(one.sees_images for one in abilities),
        )

    @abstractmethod
    def next(self, found: Found) -> Sequence[Judge]:
        """Return who is to be asked now; nobody if what was found decides."""

    @abstractmethod
    def decided(self, found: Found) -> Judgement:
        """Return what the findings come to; ``decided`` says which member, and why."""

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request."""
        return self.judge_many([request])[0]

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests; each member is asked about all that still need it at once."""
        found: list[Found] = [[] for _ in requests]
        while asking := self._asking(found):
            for member, indices in asking:
                for i, judgement in zip(
                    indices, run_many(member, [requests[i] for i in indices]), strict=True
                ):
                    found[i].append(judgement)
        return [self._signed(one) for one in found]

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request on the event loop; members of one step side by side."""
        import asyncio

        found: Found = []
        while members := self.next(found):
            found += await asyncio.gather(*(arun_judge(member, request) for member in members))
        return self._signed(found)

    def close(self) -> None:
        """Close every member."""
        for member in self.members:
            member.close()

    def _asking(self, found: Sequence[Found]) -> list[tuple[Judge, list[int]]]:
        """Return who is to be asked now, each with the requests that need it.

        A member that stands in several places is asked in each: findings come in their order.
        """
        asking: dict[tuple[int, int], tuple[Judge, list[int]]] = {}
        for i, one in enumerate(found):
            for place, member in enumerate(self.next(one)):
                asking.setdefault((place, id(member)), (member, []))[1].append(i)
        return list(asking.values())

    def _signed(self, found: Found) -> Judgement:
        update = {
            "judge_id": self.id,
            "prompt_version": self.prompt_version,
            "members": tuple(judgement.judge_id for judgement in found),
        }
        return self.decided(found).model_copy(update=update)


class CascadeJudge(CombinedJudge):
    """Asks the cheap judge first, and the next one only where it is not sure.

    Example:
        >>> CascadeJudge([light, own], band=(0.2, 0.8))              # doctest: +SKIP
    """

    def __init__(self, members: Sequence[Judge], *, band: tuple[float, float] = (0.2, 0.8)) -> None:
        """Take the members, the cheapest first.

        Args:
            members: Two judges or more.
            band: Between these probabilities, ends included, a member is not sure.

        Raises:
            PolicyError: If the band is none.
        """
        if not 0 <= band[0] <= band[1] <= 1:
            raise PolicyError(f"The band {band} is none.", hint="Give 0 <= low <= high <= 1.")
        super().__init__(members, kind="cascade", options={"band": tuple(band)})
        self.band = band

    def next(self, found: Found) -> Sequence[Judge]:
        """Return the next member while the last one failed or was not sure."""
        if found and self._is_sure(found[-1]):
            return ()
        return self.members[len(found) : len(found) + 1]

    def decided(self, found: Found) -> Judgement:
        """Return what the last member found; if it failed, the check failed."""
        last = found[-1]
        why = "it was sure" if self._is_sure(last) else "it was the last to ask"
        return _decided_by(last, why)

    def _is_sure(self, judgement: Judgement) -> bool:
        if judgement.failed is not None or judgement.label == "undecided":
            return False
        if judgement.out_of_scope:
            return False
        p = judgement.p_unsafe
        return p is None or not self.band[0] <= p <= self.band[1]


class FallbackJudge(CombinedJudge):
    """Asks the next judge only if the one before it failed.

    Example:
        >>> FallbackJudge([remote, local])                           # doctest: +SKIP
    """

    def __init__(self, members: Sequence[Judge]) -> None:
        """Take the members, the preferred one first."""
        super().__init__(members, kind="fallback", options={})

    def next(self, found: Found) -> Sequence[Judge]:
        """Return the next member while all before it failed."""
        if found and found[-1].failed is None:
            return ()
        return self.members[len(found) : len(found) + 1]

    def decided(self, found: Found) -> Judgement:
        """Return what the last member found."""
        failed = sum(judgement.failed is not None for judgement in found)
        return _decided_by(found[-1], f"{failed} failed before it" if failed else "it answered")


class EnsembleJudge(CombinedJudge):
    """Asks every judge, and makes one finding of all.

    Example:
        >>> EnsembleJudge([a, b, c], rule="majority")                # doctest: +SKIP
    """

    def __init__(
        self,
        members: Sequence[Judge],
        *,
        rule: Rule = "any",
        weights: Sequence[float] | None = None,
        needed: int | None = None,
    ) -> None:
        """Take the members.

        Args:
            members: Two judges or more.
            rule: How their probabilities become one. A label alone counts as 0, 1/2 or 1.
            weights: Of the members, for ``mean`` and ``log_odds``; None: equal.
            needed: How many must answer; None: all. Fewer, and the check failed.

        Raises:
            PolicyError: If weights or ``needed`` do not fit the members.
        """
        count = len(members)
        weights = tuple(weights or [1.0] * count)
        usable = min(weights, default=0) >= 0 and 0 < sum(weights) < math.inf  # nor is any NaN
        if len(weights) != count or not usable:
            raise PolicyError(
                f"{count} members have {len(weights)} weights, or one that is no share.",
                hint="Give one weight of 0 or more for each member, and not 0 for all.",
            )
        if needed is not None and not 1 <= needed <= count:
            raise PolicyError(f"{needed} of {count} members cannot be needed.")
        options = {"rule": rule, "weights": weights, "needed": needed}
        super().__init__(members, kind="ensemble", options=options)
        self.rule, self.weights, self.needed = rule, weights, needed or count

    def next(self, found: Found) -> Sequence[Judge]:
        """Return all members, once."""
        return () if found else self.members

    def decided(self, found: Found) -> Judgement:
        """Return the finding that the rule makes of all.

        Under ``any`` one member that finds the request unsafe decides, whoever else failed.
        """
        answers = [(j, w) for j, w in zip(found, self.weights, strict=True) if j.failed is None]
        worst = max(answers, key=lambda answer: _p(answer[0]), default=None)
        alarmed = self.rule == "any" and worst is not None and _p(worst[0]) > 0.5
        if len(answers) < self.needed and not alarmed:
            failed = next(j for j in found if j.failed is not None)
            return _decided_by(failed, f"{len(answers)} of {self.needed} answered")
        assert worst is not None
        p = _RULES[self.rule]([_p(j) for j, _ in answers], [w for _, w in answers])
        undecided = p == 0.5
        combined = worst[0].model_copy(
            update={
                "p_unsafe": p,
                "label": "undecided" if undecided else None,
                "label_mass": None,
                "unlikeness": None,
                "parse_status": "parsed",
                "reply_form": None,
                "categories": tuple(dict.fromkeys(c for j, _ in answers for c in j.categories)),
            }
        )
        return _decided_by(combined, f"{self.rule} of {len(answers)}")


def _decided_by(judgement: Judgement, why: str) -> Judgement:
    return judgement.model_copy(update={"decided": f"{judgement.judge_id}: {why}"})


def _p(judgement: Judgement) -> float:
    """Return a finding as a probability.

    A judge that calls itself undecided is at a half, and one out of its scope no lower than that.
    """
    if judgement.label == "undecided":
        return 0.5
    p = judgement.p_unsafe
    if p is None:
        p = 1.0 if judgement.label == "unsafe" else 0.0
    return max(p, 0.5) if judgement.out_of_scope else p


def _share(p: list[float], weights: list[float]) -> float:
    """Return the share of members that find it unsafe; an undecided one counts half."""
    votes = (1.0 if one > 0.5 else 0.5 if one == 0.5 else 0.0 for one in p)
    return sum(votes) / len(p)


def _mean(p: list[float], weights: list[float]) -> float:
    total = sum(weights)
    return sum(one * w for one, w in zip(p, weights, strict=True)) / total if total else 0.5


def _log_odds(p: list[float], weights: list[float]) -> float:
    odds = [math.log(_clipped(one) / (1 - _clipped(one))) for one in p]
    return 1 / (1 + math.exp(-_mean(odds, weights))) if sum(weights) else 0.5


def _clipped(p: float) -> float:
    return min(max(p, _SURE), 1 - _SURE)


_RULES: Final[dict[Rule, Callable[[list[float], list[float]], float]]] = {
    "any": lambda p, weights: max(p),
    "majority": _share,
    "mean": _mean,
    "log_odds": _log_odds,
}
