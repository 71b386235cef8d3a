"""From jobs to rows: prefill turns that belong into one batch, decode them, hand out text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

import torch

from safecode_guard.engines.transformers.loop import Row, decode
from safecode_guard.errors import TurnTimeout
from safecode_guard.models.protocol import (
    Branch,
    Constraint,
    FinishReason,
    Sampling,
    Tool,
    VisionLanguageModel,
)
from safecode_guard.output.stops import TextStream
from safecode_guard.steering.protocol import LogitsStrategy
from safecode_guard.turns.turn import Turn


@dataclass(frozen=True)
class Job:
    """One answer to decode: what to say it to, how to draw it, how to steer it."""

    turn: Turn
    sampling: Sampling
    tools: tuple[Tool, ...] = ()
    strategy: LogitsStrategy | None = None
    second: Turn | None = None
    """The turn with second views of its images, where the strategy contrasts."""
    constraint: Callable[[int], Constraint] | None = None
    """Makes the answer's grammar, given its budget of tokens."""
    deadline: float | None = None
    """In seconds of ``time.monotonic``."""
    cancelled: Event = field(default_factory=Event, compare=False)


@dataclass(frozen=True)
class Delta:
    """What one step adds to the answer of job ``index``; ``finish`` is set on its last."""

    index: int
    text: str
    finish: FinishReason | None = None
    tokens: tuple[int, ...] = ()
    """All tokens of the answer, on the last delta."""


def batch_key(job: Job) -> str:
    """Return a key that is equal for jobs which can be decoded in one batch."""
    s = job.sampling
    drawing = [s.do_sample, s.temperature, s.top_p, s.top_k, s.repetition_penalty]
    return json.dumps([len(job.turn.images), job.tools, drawing], sort_keys=True, default=str)


def prefill(model: VisionLanguageModel, jobs: Sequence[Job]) -> tuple[Branch, list[int]]:
    """Prefill jobs as one left-padded batch: their turns, then their second views.

    Returns:
        The branch, laid out as `decode` wants it, and the number of prompt tokens of each job.
    """
    turns = [job.turn for job in jobs] + [second for job in jobs if (second := contrasted(job))]
    prompts = model.encode(turns, tools=jobs[0].tools)
    counts = [len(ids) for ids in prompts.ids[: len(jobs)]]
    return model.prefill(prompts, jobs[0].sampling), counts


def contrasted(job: Job) -> Turn | None:
    """Return the job's second view if its strategy wants one, else None."""
    wanted = job.strategy is not None and job.strategy.views == 2 and job.strategy.steps > 0
    return job.second if wanted else None


def answer(model: VisionLanguageModel, branch: Branch, jobs: Sequence[Job]) -> Iterator[Delta]:
    """Decode prefilled jobs and yield their text as it comes.

    Raises:
        TurnTimeout: If a job's deadline passes.
    """
    rows = [_row(model, branch, job) for job in jobs]
    streams = [TextStream(model.vocabulary, stop=job.sampling.stop) for job in jobs]
    index = {id(row): i for i, row in enumerate(rows)}
    for advanced in decode(branch, rows):
        for row in advanced:
            i = index[id(row)]
            yield _delta(i, row, streams[i])
            _check(jobs[i], row)


def _row(model: VisionLanguageModel, branch: Branch, job: Job) -> Row:
    sampling, strategy = job.sampling, job.strategy
    limits = [sampling.max_tokens, strategy.max_tokens if strategy else None]
    generator = None
    if model.samples(sampling):
        generator = torch.Generator(device=branch.logits.device)
        if sampling.seed is None:
            generator.seed()
        else:
            generator.manual_seed(sampling.seed)
    budget = min(limit for limit in limits if limit is not None)
    return Row(
        max_tokens=budget,
        eos_ids=model.vocabulary.eos_ids,
        strategy=strategy,
        generator=generator,
        constraint=job.constraint(budget) if job.constraint else None,
    )


def _delta(index: int, row: Row, stream: TextStream) -> Delta:
    ended = row.tokens[-1] in row.eos_ids
    text = "" if ended else stream.push(row.tokens[-1])
    if stream.stopped:
        row.finish = "stop"
    if row.finish is None:
        return Delta(index, text)
    return Delta(index, text + stream.flush(), row.finish, tuple(row.tokens))


def _check(job: Job, row: Row) -> None:
    if job.deadline is not None and time.monotonic() > job.deadline and row.finish is None:
        raise TurnTimeout(
            f"The turn's deadline passed after {len(row.tokens)} tokens.",
            hint="Raise policy.deadline_s, or lower max_tokens.",
        )
    if job.cancelled.is_set():
        row.finish = "stop"
