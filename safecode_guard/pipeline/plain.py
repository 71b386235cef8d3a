"""The pipeline without a guard: the model answers, nothing is judged."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from safecode_guard.engines.transformers.batch import Job, answer, batch_key, prefill
from safecode_guard.errors import GuardError
from safecode_guard.engines.transformers.protocol import CachedModel
from safecode_guard.pipeline.admission import Turnstile
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult, collected


class PlainPipeline:
    """Serves turns on one model, in the same form as the guarded `Pipeline`."""

    def __init__(self, model: CachedModel, turnstile: Turnstile) -> None:
        self.model = model
        self._turnstile = turnstile

    def run(self, requests: Sequence[TurnRequest]) -> list[TurnResult | GuardError]:
        """Answer turns; those that fit together are decoded as one batch."""
        return collected(self.stream(requests), len(requests))

    def stream(self, requests: Sequence[TurnRequest]) -> Generator[tuple[int, TurnEvent]]:
        """Answer turns and yield pieces of text and results, with the index of their turn."""
        jobs = [_job(request) for request in requests]
        groups: dict[str, list[int]] = {}
        for i, job in enumerate(jobs):
            groups.setdefault(batch_key(job), []).append(i)
        for members in groups.values():
            try:
                for at, event in self._serve([jobs[i] for i in members]):
                    yield members[at], event
            except GuardError as error:
                yield from ((i, error) for i in members)

    def _serve(self, jobs: list[Job]) -> Iterator[tuple[int, str | TurnResult]]:
        deadline = min((job.deadline for job in jobs if job.deadline), default=None)
        texts = [""] * len(jobs)
        with self._turnstile.enter(deadline):
            branch, counts = prefill(self.model, jobs)
            for delta in answer(self.model, branch, jobs):
                i = delta.index
                texts[i] += delta.text
                if delta.text:
                    yield i, delta.text
                if delta.finish is not None:
                    yield i, TurnResult(texts[i], delta.finish, counts[i], delta.tokens)


def _job(request: TurnRequest) -> Job:
    return Job(
        request.turn,
        request.sampling,
        request.tools,
        constraint=request.constraint,
        deadline=request.deadline,
        cancelled=request.cancelled,
    )
