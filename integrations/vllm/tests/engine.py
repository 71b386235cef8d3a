"""An engine that does to a pair whatever a real one may, at random."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from safecode_guard_vllm.batch import Batch
from safecode_guard_vllm.machine import PENDING
from torch import Tensor

from safecode_guard.steering.pairs.cover import Cover, Node
from safecode_guard.steering.pairs.spec import PairSpec
from safecode_guard.steering.safecode.contrast import steer

SIZE, LENGTH = 24, 12
HALT, SEAL, EOS = 22, 23, 21
COVER = Cover(
    [
        Node({5: 1, 9: 2}, {5: 1.0, 9: 0.5}),
        Node({6: 3, 7: 4}, {6: 1.5}),
        Node(cut=True),
        Node(),
        Node(),
    ],
    lead=4,
    passed=frozenset({1, 2, 3}),
    unsure=frozenset({4}),
)


def spec(rng: random.Random) -> PairSpec:
    """Return the main's spec of some pair."""
    steps = rng.randint(1, 4)
    return PairSpec(
        pair=f"{rng.getrandbits(128):032x}",
        role="main",
        steps=steps,
        most=steps + rng.randint(0, 3),
        alpha=rng.choice([0.0, 0.3, 0.6]),
        normalise="rescale",
        top_k=8,
        plausibility=rng.choice([0.0, 0.1]),
        push=rng.choice([-2.0, 0.0, 3.0]),
        eos=(EOS,),
        halt=HALT,
        seal=SEAL,
        cover=COVER,
    )


def logits(seed: int, role: str, tokens: list[int]) -> Tensor:
    """Return what the model says after some tokens, float32 [SIZE]; never halt or seal."""
    generator = torch.Generator().manual_seed(hash((seed, role == "twin", *tokens)) % 2**31)
    said = 2 * torch.randn(SIZE, generator=generator)
    said[[HALT, SEAL]] = -50.0
    return said


def in_process(main: PairSpec, seed: int) -> tuple[list[int], bool]:
    """Return the guided tokens of the loop in one process, and whether the cover held."""
    tokens: list[int] = []
    assert main.cover is not None
    while not main.over(tokens, place := main.cover.place(tokens)):
        if place.beyond:
            return tokens, False
        push = torch.zeros(SIZE)
        for token, share in place.shares.items():
            push[token] = main.push * share
        steered = steer(
            torch.stack([logits(seed, "main", tokens), logits(seed, "twin", tokens)]),
            push if main.push and place.shares else None,
            alpha=main.alpha,
            normalise=main.normalise,
            top_k=main.top_k,
            plausibility=main.plausibility,
        ).steered
        tokens.append(int(steered.argmax()))
    return tokens, True


def continued(seed: int, tokens: list[int], length: int) -> list[int]:
    """Return an answer that goes on by itself up to a length."""
    tokens = list(tokens)
    while len(tokens) < length and tokens[-1:] != [EOS]:
        tokens.append(int(logits(seed, "main", tokens).argmax()))
    return tokens


@dataclass
class Request:
    spec: PairSpec
    limit: int
    begins: int
    written: list[int] = field(default_factory=list)
    """Its real tokens."""
    shown: list[int] = field(default_factory=list)
    """What the processor sees of them: the newest may be pending."""
    index: int | None = None
    prefilling: int = 0
    """Steps whose token is dropped."""
    ended: int | None = None
    """Length of its answer, once it is known."""
    gone: bool = False
    """It takes part no more: finished, cancelled or lost."""

    @property
    def answer(self) -> list[int]:
        return self.written[: self.ended]

    def finish(self) -> None:
        stops = {HALT, SEAL} if self.spec.role == "twin" else {HALT, EOS}
        if self.ended is not None or not self.written:
            return
        if self.written[-1] in stops or len(self.written) >= self.limit:
            self.ended = len(self.written)


class Engine:
    """One batch with a pair in it, and perhaps a third request that claims a role."""

    def __init__(self, rng: random.Random, main: PairSpec, *, calm: bool) -> None:
        self.rng, self.seed, self.calm = rng, rng.getrandbits(20), calm
        self.late = rng.random() < 0.5  # asynchronous: tokens are known one step later
        self.batch = Batch()
        begins = 0 if calm or rng.random() < 0.7 else rng.randrange(3)
        self.main = Request(main, LENGTH, 0)
        self.twin = Request(main.twin, main.longest + 1, begins)
        self.requests = [self.main, self.twin]
        if not calm and rng.random() < 0.15:
            forged = replace(main, role="main") if rng.random() < 0.5 else main.twin
            self.requests.append(Request(forged, LENGTH, rng.randrange(6)))
        if not calm and rng.random() < 0.1:
            rng.choice(self.requests).gone = True
        if not calm:
            for request in self.requests:
                request.prefilling = rng.choice([0, 0, 0, 1, 2])
        self.seen = 0

    def run(self) -> None:
        for step in range(60):
            present = [r for r in self.requests if not r.gone and r.begins <= step]
            chosen = (
                present if self._together() else [r for r in present if self.rng.random() < 0.6]
            )
            self._disturb(present)
            self._place([r for r in chosen if not r.gone])
            self._step()
            if all(request.gone for request in self.requests):
                return

    def _together(self) -> bool:
        return self.calm or self.rng.random() < 0.85

    def _disturb(self, present: list[Request]) -> None:
        if self.calm:
            return
        for request in present:
            if self.rng.random() < 0.02:  # preempted: what is in flight may be lost
                self._remove(request)
                request.prefilling = self.rng.choice([0, 0, 1])
            if self.rng.random() < 0.01:  # cancelled
                self._remove(request)
                request.gone = True

    def _place(self, chosen: list[Request]) -> None:
        """Let the batch be these requests, by removals, additions, moves and swaps."""
        for request in self.requests:
            if request.index is not None and request not in chosen:
                self._remove(request)
        for request in chosen:
            if request.index is None:
                taken = {r.index for r in self.requests}
                request.index = self.rng.choice([i for i in range(6) if i not in taken])
                request.shown = list(request.written)
                params = SimpleNamespace(extra_args={"safecode": request.spec.to_text()})
                self.batch.add(request.index, params, request.shown)
        if self.rng.random() < 0.3:
            self._move()

    def _move(self) -> None:
        source, target = self.rng.sample(range(6), 2)
        at = {r.index: r for r in self.requests if r.index is not None}
        swap = target in at
        self.batch.move(source, target, swap=swap)
        if source in at:
            at[source].index = target
        if swap:
            at[target].index = source

    def _remove(self, request: Request) -> None:
        if request.index is not None:
            self.batch.remove(request.index)
            request.index = None

    def _step(self) -> None:
        rows = torch.randn(6, SIZE)
        placed = [r for r in self.requests if r.index is not None]
        for request in placed:
            request.shown[:] = request.written
            if self.late and request.shown and self.rng.random() < 0.5:
                request.shown[-1] = PENDING
            if request.prefilling == 0:
                rows[request.index] = logits(self.seed, request.spec.role, request.written)
        rows = self.batch.apply(rows)
        for request in placed:
            request.finish()  # known one step late
            if request.prefilling:
                request.prefilling -= 1
                continue
            request.written.append(int(rows[request.index].argmax()))
            if not self.late:
                request.finish()
            if request.ended is not None:
                self._remove(request)
                request.gone = True
