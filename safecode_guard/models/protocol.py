"""What the guarded turn asks of a model, whatever serves it: engines, sessions, jobs.

An `Engine` opens a `Session` on a batch of turns. The session answers the judge's questions about
them and then, once the verdicts are there, the turns themselves. In process it is caches and
forks; behind a server it is requests. Nothing here needs torch to be imported.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from PIL import Image

from safecode_guard.models.families import Family
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from torch import Tensor

Tool = Mapping[str, Any]
"""A tool in OpenAI's form: ``{"type": "function", "function": {...}}``."""

FinishReason = Literal["stop", "length"]
"""Why an answer ended: it was complete, or its budget was used up."""

LabelScores = Mapping[int, float]
"""Log-probability of each token that was asked for, over the whole vocabulary."""


class StatedScores(dict[int, float]):
    """Scores of a question that also asked for the state they were read from."""

    def __init__(self, scores: LabelScores, state: Sequence[float]) -> None:
        super().__init__(scores)
        self.state = state
        """Of the last layer, after its norm, at the label's place, [d]."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. ``None`` leaves the model's own generation config in force."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


class Vocabulary(Protocol):
    """A tokenizer as far as steering and judging need it."""

    id: str
    """Identifies the token table: equal ids mean equal tables."""
    size: int
    """Width of the model's logits."""
    eos_ids: frozenset[int]
    special_ids: frozenset[int]

    @property
    def known_words(self) -> Sequence[str]:
        """The words that are a token of their own, sorted; at first use it may take a second."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without any special tokens added."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out, spaces as they are."""


class Constraint(Protocol):
    """A grammar that one answer must follow."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""

    def mask(self) -> Tensor:
        """Return the tokens allowed next, bool [n]."""

    def accept(self, token: int) -> None:
        """Advance by the chosen token."""


@dataclass(frozen=True)
class Needs:
    """What a strategy asks of the engine, known before any verdict."""

    views: Literal[1, 2] = 1
    """2 if it may contrast the pictures with a second view of them."""
    hidden_layer: int | None = None
    """The layer whose states it reads, counted as transformers does: 0 the embeddings, -1 the
    last, after its norm. None: no states."""
    logits: bool = True
    """It edits logits; False: it edits the prompt alone, and runs on any engine."""


@dataclass(frozen=True, eq=False)
class Step:
    """What a strategy sees of one guided step of one answer."""

    index: int
    """Number of tokens already generated."""
    logits: Tensor
    """float32 [views, n]; row 0 is the real pictures, row 1 their second view."""
    ids: Tensor
    """int64 [n], the token each column stands for."""
    so_far: Tensor
    """int64 [index], the tokens generated so far."""
    hidden: Tensor | None = None
    """float [views, d], the states at the last position of the layer that was asked for."""


@runtime_checkable
class LogitsStrategy(Protocol):
    """Steers the first tokens of one answer by editing their logits; pure in tensors."""

    @property
    def steps(self) -> int:
        """Tokens that are steered; `done` decides, which may be sooner, or later where an answer
        begins with marks or reasoning, or stands within a refusal.
        """

    @property
    def second(self) -> Turn | None:
        """The turn with second views of its pictures; None: this answer needs one view."""

    @property
    def max_tokens(self) -> int | None:
        """Cap on the answer's length; None leaves the caller's budget alone."""

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether steering is over after these tokens, ``steps`` or earlier."""

    def adjust(self, step: Step) -> Tensor:
        """Return the steered logits of one step, float32 [n]."""


@dataclass(frozen=True)
class Abilities:
    """What an engine can do beyond answering."""

    logits: bool = False
    """It runs strategy objects: its logits can be edited in this process."""
    records: frozenset[str] = frozenset()
    """Ids of the strategies that it runs by themselves, from their records."""
    hidden_states: bool = False
    grammar: bool = False
    """Its answers can be held to a grammar."""
    label_scores: bool = False
    """It can be asked for the scores of labels: it can judge itself."""
    takes_files: bool = False
    """It is handed the pictures' files, not their pixels."""
    batches: bool = False
    """Several turns in one session cost less than each in one of its own."""

    @property
    def steers(self) -> bool:
        """Whether the engine can be steered at all."""
        return self.logits or bool(self.records)


@dataclass(frozen=True)
class Question:
    """A judge's question about a turn of a session."""

    index: int
    """Of the session's turn."""
    turn: Turn
    """The conversation whose next token is the label."""
    tokens: frozenset[int]
    """The tokens whose scores are asked for."""
    with_state: bool = False
    """Whether `StatedScores` are asked for; only engines that give hidden states can."""


@dataclass(frozen=True)
class Job:
    """One answer to give: to which turn, how to draw it, how to steer it."""

    index: int
    """Of the session's turn; it comes back with every `Delta`."""
    turn: Turn
    """What is answered: the session's turn, or a plan's edit of it."""
    sampling: Sampling = Sampling()
    strategy: LogitsStrategy | None = None
    needs: Needs = Needs()
    """Of the strategy."""
    live: bool = False
    """Somebody reads the pieces as they come."""
    held: bool = False
    """The answer may yet be withheld: nobody else may hear of it or keep it."""
    record: Mapping[str, Any] | None = None
    """The steering's record (`DecodingRecord`, as JSON), for engines that run it by themselves."""
    constraint: Callable[[int], Constraint] | None = None
    """Makes the answer's grammar, given its budget of tokens."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the caller passes on to an engine that is a chat model itself."""
    deadline: float | None = None
    """In seconds of ``time.monotonic``."""
    cancelled: Event = field(default_factory=Event, compare=False)


@dataclass(frozen=True)
class Delta:
    """What is new of the answer to job ``index``; the last has a ``finish`` or an ``error``."""

    index: int
    text: str = ""
    finish: str | None = None
    tokens: tuple[int, ...] = ()
    """All tokens of the answer, on the last delta."""
    prompt_tokens: int = 0
    """Tokens of the prompt, on the last delta."""
    error: Exception | None = None
    """Why this answer could not be given or finished; the others go on."""
    native: Any = None
    """The piece, or on the last delta the whole answer, in the engine's own form."""
    read: Callable[[], Turn] | None = None
    """Reads the whole answer as a turn of one message, with its pictures and calls, on the last
    delta; None: it is its text and nothing else."""
    hidden: Tensor | None = None
    """float [tokens, d]: the states of ``needs.hidden_layer`` from which each token was chosen,
    on the last delta of a job without a strategy that asked for them."""


class Session(Protocol):
    """A batch of turns on one engine. Close it when it is done with."""

    def ask(self, questions: Sequence[Question]) -> list[LabelScores]:
        """Return the scores of each question's tokens.

        What a question has in common with the prompt of its turn is computed once.

        Raises:
            ModelError: If the model cannot be asked.
        """

    def answer(self, jobs: Sequence[Job]) -> Generator[Delta]:
        """Answer turns and yield what is new, step by step; at most once a session.

        Second views are made and run here, after the verdicts, for the jobs that need them. A
        job's own failure ends that job with an ``error`` and costs the others nothing.
        """

    def close(self) -> None:
        """Free what the session holds; an answer in progress ends."""


@runtime_checkable
class KeepingSession(Session, Protocol):
    """A session that can leave what it prefilled to later turns."""

    def keep(self, scopes: Sequence[str | None], *, limit: int) -> None:
        """Continue prompts kept from earlier turns, and keep these; before anything else.

        Args:
            scopes: Whose each turn is. Prompts are shared within a scope alone, and those
                without one among themselves.
            limit: Bytes that all kept prompts may take; 0: none is kept, and none continued.
        """


@runtime_checkable
class AsyncSession(Session, Protocol):
    """A session that answers on the event loop instead of in a worker thread."""

    def aanswer(self, jobs: Sequence[Job]) -> AsyncGenerator[Delta]:
        """Answer turns as `answer` does."""


@runtime_checkable
class Engine(Protocol):
    """A model that turns can be opened on; the guarded turn never asks what it is."""

    @property
    def id(self) -> str:
        """Name and a digest of what identifies the weights; enters judge ids and cache keys."""

    @property
    def family(self) -> Family:
        """The record of the model's family."""

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The model's tokens; None where they are out of reach, and nothing can be steered."""

    @property
    def abilities(self) -> Abilities:
        """What the engine can do."""

    def open(
        self, turns: Sequence[Turn], sampling: Sampling, *, tools: Sequence[Tool] = ()
    ) -> Session:
        """Return a session on some turns; they fit together by `batch_key`.

        Raises:
            ModelError: If they cannot be opened together; each may still be alone.
        """

    def batch_key(self, turn: Turn, sampling: Sampling, tools: Sequence[Tool]) -> str:
        """Return a key that is equal for turns which can share a session."""

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return (width, height) to which the model's preprocessing resizes an image."""
