"""A session in this process: one batch of turns, its caches, and what is asked and answered on it.

The first question prefills what the prompts of questions and answers share. Verdicts are read from
forks of that prefix; the answers continue the prefix itself. Second views are prefilled after the
verdicts, for the answers that contrast, and joined to it. Where prompts are kept for later turns, a
prefix may be one of an earlier turn.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import replace

import torch

from safecode_guard.engines.transformers.keeping import Keeping
from safecode_guard.engines.transformers.loop import Row, decode
from safecode_guard.engines.transformers.prefix import Prefix, covers_images, shared_length
from safecode_guard.engines.transformers.protocol import Branch, CachedModel, Prompts
from safecode_guard.engines.transformers.seen import SeenPictures
from safecode_guard.errors import GuardError, TurnTimeout, UnsupportedGeneration
from safecode_guard.models.protocol import (
    Delta,
    Job,
    LabelScores,
    Question,
    Sampling,
    StatedScores,
    Tool,
)
from safecode_guard.output.stops import TextStream
from safecode_guard.turns.turn import Turn


class TransformersSession:
    """Turns of one batch on a model whose caches are in reach.

    Example:
        >>> session = vlm.open([turn], Sampling())                          # doctest: +SKIP
        >>> session.ask([Question(0, turn.ask("Safe or unsafe?"), labels)])  # doctest: +SKIP
        >>> "".join(delta.text for delta in session.answer([Job(0, turn)]))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: CachedModel,
        turns: Sequence[Turn],
        sampling: Sampling,
        tools: Sequence[Tool] = (),
    ) -> None:
        self._model = model
        self._turns = list(turns)
        self._sampling = sampling
        self._tools = tuple(tools)
        self._prompts: Prompts | None = None
        self._prefix: Prefix | None = None
        self._unshared = not model.family.shares_image_prefix
        self._keeping = Keeping(model, sampling)
        self._scopes: list[str | None] = [None] * len(self._turns)
        self._seen = SeenPictures()
        self._closed = False

    def keep(self, scopes: Sequence[str | None], *, limit: int) -> None:
        """Continue prompts kept from earlier turns, and keep these; see `KeepingSession`."""
        self._scopes = list(scopes)
        self._keeping = Keeping(self._model, self._sampling, limit=limit, tools=self._tools)

    def close(self) -> None:
        """Free the caches; an answer in progress ends before its next step."""
        self._closed = True
        self._prompts = self._prefix = None
        self._seen = SeenPictures()

    # -- asking -------------------------------------------------------------------------------

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Return the scores of each question's tokens; see `Session.ask`.

        A question that is its turn itself is prefilled whole: nothing will be answered.
        """
        scores: dict[int, LabelScores] = {}
        whole = [i for i, q in enumerate(questions) if q.turn is self._turns[q.index]]
        about = [i for i in range(len(questions)) if i not in whole]
        scores |= self._continued(questions, about)
        whole += [i for i in about if i not in scores]
        scores |= self._whole(questions, whole)
        return [scores[i] for i in range(len(questions))]

    def _continued(
        self, questions: Sequence[Question], asked: Sequence[int]
    ) -> dict[int, LabelScores]:
        """Ask on forks of the shared prefix, where it is one."""
        if not asked or self._unshared:
            return {}
        try:
            prompts = self._questions([questions[i].turn for i in asked])
        except GuardError:  # told apart question by question
            return {}
        ids = prompts.ids
        if self._prefix is None:
            self._share([questions[i].index for i in asked], ids)
        prefix = self._prefix
        if prefix is None:
            return {}
        crops = self._model.family.crops and prefix.branch.can_crop
        shared = [
            prefix.shared(questions[i].index, ids[n], prompts.image_ids)
            for n, i in enumerate(asked)
        ]
        fitting = [
            n
            for n, i in enumerate(asked)
            if shared[n] == prefix.lengths[questions[i].index] or (shared[n] and crops)
        ]
        rows = [questions[asked[n]].index for n in fitting]
        lengths = [shared[n] for n in fitting]
        suffixes = [ids[n][length:] for n, length in zip(fitting, lengths, strict=True)]
        if not fitting or not self._may_extend(suffixes):
            return {}
        fork = replace(prefix, branch=prefix.branch.fork()).only(rows)
        if lengths != fork.lengths:
            fork.branch.crop(lengths)
        fork.branch.watch(_watched([questions[asked[n]] for n in fitting]))
        fork.branch.extend(suffixes)
        return {
            asked[n]: _scores(fork.branch, row, questions[asked[n]])
            for row, n in enumerate(fitting)
        }

    def _whole(self, questions: Sequence[Question], asked: Sequence[int]) -> dict[int, LabelScores]:
        """Ask on prompts of their own; those with equally many images together."""
        groups: dict[int, list[int]] = {}
        for i in asked:
            groups.setdefault(len(questions[i].turn.images), []).append(i)
        scores: dict[int, LabelScores] = {}
        for members in groups.values():
            prompts = self._questions([questions[i].turn for i in members])
            layer = _watched([questions[i] for i in members])
            branch = self._model.prefill(prompts, Sampling(), hidden_layer=layer)
            for row, i in enumerate(members):
                scores[i] = _scores(branch, row, questions[i])
        return scores

    def _share(self, indices: Sequence[int], asked: Sequence[Sequence[int]]) -> None:
        """Prefill what prompts and questions have in common, if it would pay.

        A question that does not begin with all of its turn's pictures shares nothing.
        """
        answers = self._answers()
        ids, pictures = answers.ids, answers.image_ids
        self._prefix = self._keeping.found(self._turns, self._scopes, answers)
        if self._prefix is not None:
            return
        shared: dict[int, int] = {}
        for index, question in zip(indices, asked, strict=True):
            length = shared_length(ids[index], question)
            if length and not pictures.intersection(ids[index][length:]):
                shared[index] = min(length, shared.get(index, length))
        suffix = max((len(ids[i]) - length for i, length in shared.items()), default=0)
        lengths = [shared.get(i, max(len(row) - suffix, 0)) for i, row in enumerate(ids)]
        after = [row[n:] for row, n in zip(ids, lengths, strict=True)]
        possible = shared and min(lengths) > 0 and covers_images(answers, lengths)
        if not possible or not self._may_extend(after):
            self._unshared = True
            return
        branch = self._model.prefill(answers.cut(lengths), self._sampling)
        self._prefix = Prefix(branch, ids, lengths, max(lengths))

    def _may_extend(self, blocks: Sequence[Sequence[int]]) -> bool:
        """Return whether rows can be continued by these blocks in one pass."""
        return self._model.family.ragged_extend or len({len(block) for block in blocks}) == 1

    def _answers(self) -> Prompts:
        if self._prompts is None:
            self._prompts = self._encoded(self._turns)
        return self._prompts

    def _questions(self, turns: Sequence[Turn]) -> Prompts:
        """Encode what a judge asks: without the tools, which are no part of a scene."""
        return self._model.encode(turns, seen=self._seen)

    def _encoded(self, turns: Sequence[Turn]) -> Prompts:
        return self._model.encode(turns, tools=self._tools, seen=self._seen)

    # -- answering ----------------------------------------------------------------------------

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Answer turns and yield what is new, step by step; see `Session.answer`.

        Raises:
            ModelError: If the jobs cannot be decoded as one batch; each may still be alone.
        """
        rows = [_row(self._model, job) for job in jobs]
        sound = [i for i, row in enumerate(rows) if row.error is None]
        yield from (
            Delta(jobs[i].index, error=rows[i].error) for i in set(range(len(rows))) - {*sound}
        )
        if not sound:
            return
        jobs, rows = [jobs[i] for i in sound], [rows[i] for i in sound]
        branch, counts = self._start(jobs, rows)
        self._prefix = self._prompts = None  # the branch is all that is still needed
        self._seen = SeenPictures()
        for job, row in zip(jobs, rows, strict=True):
            if self._model.samples(job.sampling):
                row.generator = _generator(job.sampling.seed, branch.logits.device)
        yield from self._decoded(branch, jobs, rows, counts)

    def _decoded(
        self, branch: Branch, jobs: Sequence[Job], rows: Sequence[Row], counts: Sequence[int]
    ) -> Generator[Delta]:
        vocabulary = self._model.vocabulary
        streams = [TextStream(vocabulary, stop=job.sampling.stop) for job in jobs]
        place = {id(row): i for i, row in enumerate(rows)}
        for advanced in decode(branch, rows):
            for row in advanced:
                i = place[id(row)]
                delta = _delta(jobs[i], row, streams[i], counts[i])
                self._check(jobs[i], row)
                yield delta
                if row.error is not None and delta.error is None:
                    yield Delta(jobs[i].index, error=row.error)

    def _check(self, job: Job, row: Row) -> None:
        """End a row whose caller has gone, or whose time is up."""
        if not row.running:
            return
        if self._closed or job.cancelled.is_set():
            row.error = TurnTimeout("The turn was cancelled.", hint="Its caller has gone.")
        elif job.deadline is not None and time.monotonic() > job.deadline:
            row.error = TurnTimeout(
                f"The turn's deadline passed after {len(row.tokens)} tokens.",
                hint="Raise policy.deadline_s, or lower max_tokens.",
            )

    def _start(self, jobs: Sequence[Job], rows: Sequence[Row]) -> tuple[Branch, list[int]]:
        """Return the branch as `decode` wants it, and the prompt tokens of each job."""
        layer = _hidden_layer(jobs)
        seconds = [
            (place, job.strategy.second)
            for place, (job, row) in enumerate(zip(jobs, rows, strict=True))
            if row.views == 2 and job.strategy is not None and job.strategy.second is not None
        ]
        turns = [job.turn for job in jobs] + [second for _, second in seconds]
        scopes = [self._scopes[job.index] for job in jobs]
        scopes += [scopes[place] for place, _ in seconds]
        ids, branch = self._begun(jobs, seconds, scopes, layer)
        self._keeping.put(turns, scopes, ids, branch)
        return branch, [len(row) for row in ids[: len(jobs)]]

    def _begun(
        self,
        jobs: Sequence[Job],
        seconds: Sequence[tuple[int, Turn]],
        scopes: Sequence[str | None],
        layer: int | None,
    ) -> tuple[list[list[int]], Branch]:
        """Return the prompts of jobs and of the second views behind them, and their branch."""
        turns = [job.turn for job in jobs]
        edited = any(job.turn is not self._turns[job.index] for job in jobs)
        whole = len(jobs) == len(self._turns) and not edited
        if self._prefix is not None and not edited:
            prefix = self._prefix.only([job.index for job in jobs])
            return self._continued_by(prefix, seconds, scopes[len(jobs) :], layer)
        if self._keeping.knows(turns, scopes[: len(jobs)]):
            prompts = self._answers() if whole else self._encoded(turns)
            if (kept := self._keeping.found(turns, scopes[: len(jobs)], prompts)) is not None:
                return self._continued_by(kept, seconds, scopes[len(jobs) :], layer)
        turns += [second for _, second in seconds]
        prompts = self._answers() if whole and not seconds else self._encoded(turns)
        return prompts.ids, self._model.prefill(prompts, self._sampling, hidden_layer=layer)

    def _continued_by(
        self,
        prefix: Prefix,
        seconds: Sequence[tuple[int, Turn]],
        scopes: Sequence[str | None],
        layer: int | None,
    ) -> tuple[list[list[int]], Branch]:
        """Continue prefixes to the ends of their prompts.

        The second views' are made now, and joined: as long as those that they belong to, unless
        longer ones are kept.
        """
        if seconds:
            turns = [second for _, second in seconds]
            prompts = self._encoded(turns)
            views = self._keeping.found(turns, scopes, prompts)
            if views is None:
                lengths = [prefix.lengths[place] for place, _ in seconds]
                cut = prompts.cut(lengths, width=prefix.width)
                branch = self._model.prefill(cut, self._sampling)
                views = Prefix(branch, prompts.ids, lengths, prefix.width)
            prefix = prefix.joined(views)
        prefix.branch.watch(layer)
        prefix.branch.extend(prefix.blocks)
        return prefix.ids, prefix.branch


def _scores(branch: Branch, row: int, question: Question) -> LabelScores:
    """Return log-probabilities over the whole vocabulary; NaN where the logits are none."""
    log_p = branch.logits[row].float().log_softmax(-1)
    tokens = sorted(question.tokens)
    scores = {token: float(log_p[token]) for token in tokens if 0 <= token < len(log_p)}
    if not question.with_state or branch.hidden is None:
        return scores
    return StatedScores(scores, branch.hidden[row].float().tolist())


def _watched(questions: Sequence[Question]) -> int | None:
    """Return the layer whose states are asked for: the last, or none."""
    return -1 if any(question.with_state for question in questions) else None


def _hidden_layer(jobs: Sequence[Job]) -> int | None:
    layers = {job.needs.hidden_layer for job in jobs} - {None}
    if len(layers) > 1:
        raise UnsupportedGeneration(
            f"The strategies of one batch read different layers: {sorted(map(str, layers))}.",
            hint="Answer these turns in separate calls.",
        )
    return next(iter(layers), None)


def _row(model: CachedModel, job: Job) -> Row:
    """Return a job's row; what its strategy or grammar raise already is the row's error."""
    try:
        return _made_row(model, job)
    except Exception as error:  # strategies and grammars are foreign code
        return Row(0, frozenset(), error=error)


def _made_row(model: CachedModel, job: Job) -> Row:
    strategy = job.strategy
    limits = [job.sampling.max_tokens, strategy.max_tokens if strategy else None]
    budget = min(limit for limit in limits if limit is not None)
    return Row(
        max_tokens=budget,
        eos_ids=model.vocabulary.eos_ids,
        strategy=strategy,
        constraint=job.constraint(budget) if job.constraint else None,
        keeps_hidden=strategy is None and job.needs.hidden_layer is not None,
    )


def _generator(seed: int | None, device: torch.device) -> torch.Generator:
    generator = torch.Generator(device=device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def _delta(job: Job, row: Row, stream: TextStream, prompt_tokens: int) -> Delta:
    if row.error is not None:
        return Delta(job.index, error=row.error)
    ended = row.tokens[-1] in row.eos_ids
    text = "" if ended else stream.push(row.tokens[-1])
    if stream.stopped:
        row.finish = "stop"
    if row.finish is None:
        return Delta(job.index, text)
    hidden = torch.stack(row.hidden) if row.hidden else None
    return Delta(
        job.index,
        text + stream.flush(),
        row.finish,
        tuple(row.tokens),
        prompt_tokens,
        hidden=hidden,
    )
