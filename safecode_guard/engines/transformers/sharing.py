"""One prefill for verdict and answer: the prompt prefix that both share, image included.

The answer's prompt and the judge's question begin with the same tokens up to the last image. That
prefix is prefilled once, for the real images and their second views alike; the judge continues a
fork of it with its question, the answer continues it with the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from safecode_guard.engines.transformers.batch import Job
from safecode_guard.engines.transformers.prefix import common_prefix, covers_images
from safecode_guard.engines.transformers.protocol import Branch, CachedModel
from safecode_guard.turns.turn import Turn


@dataclass(eq=False)
class SharedPrefill:
    """A prefilled prefix of n turns: n real rows, then n rows of second views (or none)."""

    branch: Branch
    answers: list[list[int]]
    """Token ids of the answers' prompts, those with second views after the others."""
    questions: list[list[int]]
    lengths: list[int]
    """Tokens of each turn's shared prefix."""
    paired: bool
    _verdicts: Tensor | None = None

    @property
    def turns(self) -> int:
        """Number of turns, n."""
        return len(self.lengths)

    def question_logits(self) -> Tensor:
        """Return the next-token logits [n, vocabulary] after the judge's questions."""
        if self._verdicts is None:
            fork = self.branch.fork()
            if self.paired:
                fork = fork.select(range(self.turns))
            suffixes = [ids[n:] for ids, n in zip(self.questions, self.lengths, strict=True)]
            self._verdicts = fork.extend(suffixes)
        return self._verdicts

    def row(self, index: int) -> PrefixRow:
        """Return the handle by which the judge of one turn reads its logits."""
        return PrefixRow(self, index)

    def answer_branch(self, indices: Sequence[int], contrasted: Sequence[int]) -> Branch:
        """Return the branch that answers some of the turns; the prefix is used up by this.

        Args:
            indices: Turns to answer.
            contrasted: Those of them that need their second view, in the same order.
        """
        rows = [*indices, *(self.turns + i for i in contrasted)]
        branch = self.branch
        if rows != list(range(branch.rows)):
            branch = branch.select(rows)
        suffixes = [self.answers[i][self.lengths[i % self.turns] :] for i in rows]
        branch.extend(suffixes)
        return branch

    def prompt_tokens(self, index: int) -> int:
        """Return the number of prompt tokens of one answer."""
        return len(self.answers[index])


@dataclass(frozen=True, eq=False)
class PrefixRow:
    """One turn's row of a shared prefill; what a judge sees of it."""

    shared: SharedPrefill
    index: int

    def logits(self) -> Tensor:
        """Return the next-token logits [vocabulary] after the judge's question."""
        return self.shared.question_logits()[self.index]


def share(
    model: CachedModel,
    jobs: Sequence[Job],
    questions: Sequence[Turn],
) -> SharedPrefill | None:
    """Prefill what answers and judge's questions have in common; None if it would not pay.

    Jobs that all carry a second view are prefilled with it. The prefix must hold every image of
    the answer's prompt, and the family must allow it (`Family.shares_image_prefix`).
    """
    if not model.family.shares_image_prefix:
        return None
    seconds = [job.second for job in jobs if job.second is not None]
    paired = len(seconds) == len(jobs)
    turns = [job.turn for job in jobs] + (seconds if paired else [])
    answers = model.encode(turns, tools=jobs[0].tools)
    asked = model.encode(questions, tools=jobs[0].tools)
    answer_ids, asked_ids = answers.ids, asked.ids
    lengths = common_prefix(answers, asked)
    rows = lengths * (2 if paired else 1)
    if not covers_images(answers, rows):
        return None
    if not model.family.ragged_extend and _ragged(answer_ids, asked_ids, rows):
        return None
    branch = model.prefill(answers.cut(rows), jobs[0].sampling)
    return SharedPrefill(branch, answer_ids, asked_ids, lengths, paired)


def _ragged(answers: list[list[int]], asked: list[list[int]], lengths: list[int]) -> bool:
    """Return whether the rows would be continued by blocks of different lengths."""
    after = {len(ids) - n for ids, n in zip(answers, lengths, strict=True)}
    questions = {len(ids) - n for ids, n in zip(asked, lengths, strict=False)}
    return len(after) > 1 or len(questions) > 1
