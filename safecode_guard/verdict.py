"""What a judge found (`Judgement`) and what the guard made of it (`Verdict`).

Both are frozen, JSON-able, and hold no pixels. A judgement is a fact about a request and may be
cached; a verdict is that fact under a policy, and is made afresh each time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from safecode_guard.taxonomy import Action, Category, Label, Stage, severity

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

EVENT_NAME: Final = "safecode.verdict"
CLOSED_EVENT: Final = "safecode.verdict.closed"
"""Tells the verdict of a steered turn once more, with what became of its answer."""
METADATA_KEY: Final = "safecode"
CLOSED_KEY: Final = "safecode_closed"
"""On the last chunk of a live stream: what became of answers whose verdicts came before them."""
STATE_KEY: Final = "safecode_verdicts"
"""Where the state of a graph or an agent keeps verdicts, by what they are about."""

ParseStatus = Literal["logits", "parsed", "low_mass", "malformed", "not_run"]
"""How the label was had: from label logits, from parsed text, or not at all."""

ReplyForm = Literal["logprobs", "json", "word"]
"""How a judge behind a server was made to answer: by the probabilities of its next token, by JSON
that its server holds to a schema, or by one word that is read strictly."""


FollowUp = Literal["retry", "replace", "rail"]
"""What follows an answer that did not obey: a second one, the guard's own text, a judge's look."""


class _Record(BaseModel):
    # readers meet newer minor fields, so unknown keys are let be
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Judgement(_Record):
    """What a judge found in one request, before any policy.

    ``failed`` is set when the check itself broke; then there is neither label nor probability.
    """

    judge_id: str
    prompt_version: str
    p_unsafe: float | None = Field(default=None, ge=0, le=1)
    """Probability that helping is unsafe; None if the judge gives only a label."""
    label: Label | None = None
    """A label of the judge's own; used where there is no probability."""
    label_mass: float | None = Field(default=None, ge=0)
    """Probability that the judge's next token is one of the labels at all."""
    categories: tuple[Category, ...] = ()
    caption: str | None = None
    rationale: str | None = None
    parse_status: ParseStatus = "parsed"
    reply_form: ReplyForm | None = None
    """In which form a judge behind a server answered."""
    failed: str | None = None
    """Why the check failed, without content of the conversation."""
    latency_ms: float = 0.0
    cached: bool = False
    members: tuple[str, ...] = ()
    """Ids of the judges that were asked, where one judge asks others."""
    decided: str | None = None
    """Which of them decided, and why."""
    calibration_id: str | None = None
    unlikeness: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """How unlike the scenes of the judge's calibration this one is; above 1 it is not safe."""

    @property
    def out_of_scope(self) -> bool:
        """Whether the judge, by its calibration, cannot be trusted to call this safe."""
        return self.unlikeness is not None and self.unlikeness > 1


class SubjectImage(_Record):
    """An image that was judged, by reference."""

    sha256: str
    """Of the encoded bytes as they came; of the binary PPM for an image handed over as pixels."""
    message_index: int
    mime: str
    width: int
    height: int
    shown_sha256: str | None = None
    """Of the PNG that was made of the judged pixels and handed on to a model in place of those
    bytes; None: the bytes themselves were, or the pixels, or nothing yet."""


class SkippedMedia(_Record):
    """Media that could not be judged, and why. Never dropped silently."""

    message_index: int
    block_index: int
    """-1 where it stands outside the message's content."""
    kind: str
    reason: str


class ToolCallRef(_Record):
    """The tool call that was judged, bound to its arguments by their hash."""

    id: str
    name: str
    args_sha256: str


class JudgeRecord(_Record):
    """Which judge spoke, and at what cost."""

    id: str
    prompt_version: str
    latency_ms: float
    reply_form: ReplyForm | None = None
    """In which form a judge behind a server answered."""
    cached: bool = False
    members: tuple[str, ...] = ()
    """Ids of the judges that were asked, where one judge asks others."""
    decided: str | None = None
    """Which of them decided, and why."""
    calibration_id: str | None = None
    unlikeness: float | None = None
    """How unlike the scenes of the judge's calibration this one was; above 1 it is not safe."""
    health: Literal["ok", "degraded"] = "ok"
    """Degraded: many of the judge's last checks failed, or its verdicts have shifted."""


class DecodingRecord(_Record):
    """How the answer was steered: complete, so that equal records steer equally.

    Nothing that was not used is written down.
    """

    strategy: str
    seed: int
    """Of all random draws of the steering, such as the second view's noise."""
    steps: int
    """Most tokens that were steered; 0 where the prompt was edited instead."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The strategy's own values, as used."""


class PolicyRef(_Record):
    """The policy that was applied, by name and digest."""

    name: str
    digest: str


class Review(_Record):
    """A human's decision on a turn that was held for review."""

    decision: Literal["approve", "reject", "edit"]
    by: str
    at: datetime


class Verdict(_Record):
    """What the guard decided about one turn, tool call, tool result or answer.

    Example:
        >>> reply = guard.invoke(messages)                       # doctest: +SKIP
        >>> Verdict.from_message(reply).action                   # doctest: +SKIP
        'guide'
    """

    schema_version: Literal[1] = 1
    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    run_id: str | None = None
    stage: Stage = "input"
    label: Label | None
    """safe, unsafe or undecided; None if the judge failed or could not be asked."""
    action: Action
    p_unsafe: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    label_mass: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    categories: tuple[Category, ...] = ()
    caption: str | None = None
    rationale: str | None = None
    parse_status: ParseStatus = "parsed"
    degraded: bool = False
    """The check failed or was incomplete, and the policy's fallback decided the action."""
    images: tuple[SubjectImage, ...] = ()
    media_skipped: tuple[SkippedMedia, ...] = ()
    left_out: tuple[SkippedMedia, ...] = ()
    """Pictures beyond ``images.max_images``: the oldest, which the model was not shown."""
    decided_by: tuple[int, ...] | None = None
    """Which of ``images`` the judge was shown together when it found what decided."""
    tool_call: ToolCallRef | None = None
    judge: JudgeRecord | None = None
    decoding: DecodingRecord | None = None
    obeyed: bool | None = None
    """Whether the finished answer did what it was steered to: refuse or advise against after an
    unsafe verdict, not refuse after a safe one; None: not steered, not finished, or not told."""
    followed_by: FollowUp | None = None
    """What the policy did as the answer had not obeyed; after ``retry``, ``obeyed`` and
    ``decoding`` are those of the second answer."""
    policy: PolicyRef
    review: Review | None = None
    error: str | None = None

    @property
    def closed(self) -> bool:
        """Whether it also tells what became of the steered answer: the same id as before it."""
        return self.obeyed is not None or self.followed_by is not None

    @property
    def standing(self) -> Action:
        """The action in force: a human's yes or no stands above the policy's.

        What a human has edited stands as it was judged afterwards.
        """
        if self.review is None or self.review.decision == "edit":
            return self.action
        return "block" if self.review.decision == "reject" else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as plain JSON types."""
        return self.model_dump(mode="json")

    @classmethod
    def all_from_message(cls, message: BaseMessage) -> tuple[Self, ...]:
        """Return every verdict on a message, in the order in which they were made.

        Where a live stream closed one on its last chunk, that is in it.
        """
        return cls._parse_all(message.response_metadata)

    @classmethod
    def from_message(cls, message: BaseMessage, *, stage: Stage | None = None) -> Self | None:
        """Return the most severe verdict on a message, or None if it carries none.

        Args:
            message: An AI message, or merged chunks of one.
            stage: Look only at verdicts of this stage.
        """
        found = [v for v in cls.all_from_message(message) if stage in (None, v.stage)]
        return gravest(found)

    @classmethod
    def from_event(cls, event: Mapping[str, Any], *, name: str = EVENT_NAME) -> Self | None:
        """Return the verdict of a LangChain stream event, or None if the event is another.

        Takes ``astream_events`` entries, the bare payload of a custom event, and what LangGraph
        yields in ``stream_mode="custom"``.

        Args:
            event: The event.
            name: `CLOSED_EVENT` for verdicts with what became of their answers.
        """
        payload: Any = event
        if event.get("event") == "on_custom_event":
            payload = event.get("data") if event.get("name") == name else None
        elif name in event:
            payload = event[name]
        if not isinstance(payload, Mapping) or "schema_version" not in payload:
            return None
        return cls.model_validate(payload)

    @classmethod
    def _parse_all(cls, metadata: Mapping[str, Any]) -> tuple[Self, ...]:
        found: Iterable[Any] = metadata.get(METADATA_KEY) or ()
        became = {item["id"]: item for item in metadata.get(CLOSED_KEY) or ()}
        return tuple(cls.model_validate({**item, **became.get(item["id"], {})}) for item in found)


V = TypeVar("V", bound=Verdict)


def gravest(verdicts: Iterable[V]) -> V | None:
    """Return the verdict whose action in force is the gravest, of equals the first; None: of none.

    Example:
        >>> gravest([])
    """
    return max(verdicts, key=lambda verdict: severity(verdict.standing), default=None)


def to_closing(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the response metadata that closes verdicts which an earlier chunk carries."""
    told = {"id", "obeyed", "followed_by"}
    return {CLOSED_KEY: [verdict.model_dump(mode="json", include=told) for verdict in verdicts]}


def to_metadata(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Return the response metadata that carries verdicts: a list, so that chunks can merge."""
    return {METADATA_KEY: [verdict.to_json() for verdict in verdicts]}
