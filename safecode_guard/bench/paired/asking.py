"""Asking judges and models about items, in batches, each thing once.

An answer depends on an item, a row and what the verdict makes of it, and on nothing else. So
answers are kept under that key, and judges that agree on an item share its answer. Batches follow
from the plan alone, so a resumed run computes what an unbroken one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeVar

from safecode_guard.bench.ledger import Ledger
from safecode_guard.bench.paired.items import Item
from safecode_guard.bench.paired.panel import Panelist
from safecode_guard.bench.paired.rows import Row
from safecode_guard.errors import GuardError
from safecode_guard.judges.failsafe import run_many
from safecode_guard.judges.protocol import BaseJudge, Judge, JudgeAbilities, JudgeRequest
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.pipeline.examiner import Subject
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest, TurnResult
from safecode_guard.pipeline.rules import certainty_of, decide, label_of
from safecode_guard.policy import Thresholds
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.turns.scene import SCENE_IMAGES, Shown
from safecode_guard.verdict import FollowUp, Judgement

BATCH: Final = 32
MAX_TOKENS: Final = 64
CERTAIN: Final = Judgement(
    judge_id="none", prompt_version="none", p_unsafe=0.0, parse_status="logits"
)
"""Handed in where no verdict is to change anything."""

_T = TypeVar("_T")

Judgements = Mapping[str, Judgement]
"""By the key of the item."""


@dataclass(frozen=True)
class Answer:
    """What was answered to an item."""

    text: str
    tokens: int
    withheld: bool = False
    """The guard answered in the model's place."""
    obeyed: bool | None = None
    """As its verdict says; None: not told."""
    followed_by: FollowUp | None = None


@dataclass(frozen=True)
class Plan:
    """A row, a judge's judgements and the items to answer."""

    row: Row
    judgements: Judgements
    items: Sequence[Item]


class Asker:
    """Answers plans on one model and keeps what it found in a ledger."""

    def __init__(
        self,
        model: Engine,
        *,
        identity: str,
        ledger: Ledger,
        max_tokens: int = MAX_TOKENS,
        on_done: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Make the asker.

        Args:
            model: What answers.
            identity: Hash of its weights.
            ledger: Where answers and judgements are kept.
            max_tokens: Longest answer.
            on_done: Told how many turns were finished, for progress bars.
        """
        self.model = model
        self._identity = identity
        self._ledger = ledger
        self._max_tokens = max_tokens
        self._on_done = on_done

    def judge(self, panelist: Panelist, items: Sequence[Item]) -> Judgements:
        """Return the judgements of one judge on items; scripted ones cost nothing."""
        judge = panelist.judge
        if judge is None:
            return {item.key: panelist.scripted(item) for item in items}
        keys = {item.key: _judgement_key(panelist, item) for item in items}
        for chunk in _chunks(items):
            if any(keys[item.key] not in self._ledger for item in chunk):
                found = _gravest(judge, chunk, panelist.shown)
                self._ledger.add(
                    {
                        keys[item.key]: _stored(judgement)
                        for item, judgement in zip(chunk, found, strict=True)
                    }
                )
            self._on_done(len(chunk))
        return {key: Judgement(**self._ledger[entry]) for key, entry in keys.items()}

    def prepare(self, plans: Sequence[Plan]) -> None:
        """Answer all that the plans need and that is not known yet."""
        for row in dict.fromkeys(plan.row for plan in plans):
            wanted: dict[str, Wanted] = {}
            for plan in plans:
                if plan.row == row:
                    wanted |= {key: (item, found) for key, item, found in self._keyed(plan)}
            self._answer(row, wanted)

    def answers(self, plan: Plan) -> dict[str, Answer]:
        """Return the answers of a prepared plan by the key of the item."""
        return {item.key: Answer(**self._ledger[key]) for key, item, _ in self._keyed(plan)}

    def turns(self, row: Row, judge: Judge) -> GuardedTurns:
        """Return what serves the row's turns under a judge."""
        examiner = make_examiner(row.policy(), judge=judge)
        return make_turns(self.model, examiner, strategy=row.own_strategy(self.model))

    def sampling(self, item: Item) -> Sampling:
        """Return greedy sampling with the item's own seed for its noise."""
        return Sampling(do_sample=False, max_tokens=self._max_tokens, seed=item.seed)

    def _answer(self, row: Row, wanted: Mapping[str, Wanted]) -> None:
        for chunk in _chunks(list(wanted.items())):
            if any(key not in self._ledger for key, _ in chunk):
                for together in _apart(chunk):
                    results = self._run(row, [entry for _, entry in together])
                    answers = (asdict(_answer(result)) for result in results)
                    self._ledger.add(dict(zip((key for key, _ in together), answers, strict=True)))
            self._on_done(len(chunk))

    def _run(self, row: Row, entries: Sequence[Wanted]) -> list[TurnResult | Exception]:
        """Answer items, each under the judgement that is known of it."""
        judge = KnownJudge.of(entries)
        requests = [TurnRequest(item.turn, self.sampling(item)) for item, _ in entries]
        return self.turns(row, judge).run(requests)

    def _keyed(self, plan: Plan) -> Iterator[tuple[str, Item, Judgement]]:
        """Yield each item of a plan with its judgement and a key of all its answer depends on."""
        row, policy, parameters = plan.row, plan.row.policy(), plan.row.parameters(self.model)
        how = "second_view" if row.blind else row.decoding.strategy
        common = ["answer", self._identity, how, parameters.model_dump_json(), self._max_tokens]
        common += ["follows", row.follows, policy.decoding.retry_push]
        if row.decoding.prototypes is not None:
            common.append(Prototypes.read(Path(row.decoding.prototypes)).id)
        for item in plan.items:
            judgement = plan.judgements[item.key] if row.judged else CERTAIN
            parts = [*common, item.key]
            if row.judged:
                decision = decide(judgement, policy)
                parts += [decision.label, decision.action]
                if parameters.certainty_power > 0:
                    parts.append(certainty_of(judgement, decision.label))
            yield "|".join(map(str, parts)), item, judgement


Wanted = tuple[Item, Judgement]
"""An item to answer, and what is known of it."""


@dataclass(frozen=True)
class KnownJudge(BaseJudge):
    """Says of each scene what is known of it already."""

    known: Mapping[str, Judgement]
    """By the digest of the scene."""
    id = "known"
    abilities = JudgeAbilities(honours_deadline=True)

    @classmethod
    def of(cls, entries: Sequence[Wanted]) -> KnownJudge:
        """Return the judge that knows these."""
        return cls({JudgeRequest.of_turn(i.turn).scene.digest: found for i, found in entries})

    def judge(self, request: JudgeRequest) -> Judgement:
        """Look the scene up."""
        return self.known[request.scene.digest]


def _apart(chunk: Sequence[tuple[str, Wanted]]) -> list[list[tuple[str, Wanted]]]:
    """Part a chunk so that no item stands twice, under two judgements, in one part."""
    parts: list[dict[str, tuple[str, Wanted]]] = []
    for entry in chunk:
        item = entry[1][0]
        part = next((part for part in parts if item.key not in part), None)
        if part is None:
            parts.append(part := {})
        part[item.key] = entry
    return [list(part.values()) for part in parts]


def _answer(result: TurnResult | Exception) -> Answer:
    if isinstance(result, Exception):
        raise result
    verdict = result.verdicts[0] if result.verdicts else None
    obeyed, followed = (verdict.obeyed, verdict.followed_by) if verdict else (None, None)
    return Answer(result.text, len(result.tokens), result.withheld, obeyed, followed)


def _judgement_key(panelist: Panelist, item: Item) -> str:
    several = [panelist.shown] if len(item.turn.images) > 1 else []
    return "|".join(["judgement", panelist.identity, *several, item.key])


def _gravest(judge: Judge, items: Sequence[Item], shown: Shown) -> list[Judgement]:
    """Return the gravest judgement on each item; of several pictures there is more than one."""
    asked = [Subject("input", item.turn).requests(most=SCENE_IMAGES, shown=shown) for item in items]
    found = iter(run_many(judge, [request for requests in asked for request in requests]))
    return [max((next(found) for _ in requests), key=_gravity) for requests in asked]


def _gravity(judgement: Judgement) -> tuple[int, float]:
    label = label_of(judgement, Thresholds())
    p_unsafe = judgement.p_unsafe
    rank = ("safe", "undecided", "unsafe", None).index(label)
    return rank, 1.0 if p_unsafe is None else p_unsafe


def _stored(judgement: Judgement) -> dict[str, object]:
    """Return a judgement as it is kept: without the time it took, which is no result."""
    if judgement.failed is not None:
        raise GuardError(f"The judge {judgement.judge_id!r} failed: {judgement.failed}")
    return judgement.model_dump(mode="json", exclude={"latency_ms"})


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]
