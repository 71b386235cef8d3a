"""Guard models as judges: published classifiers that answer in a form of their own."""

from __future__ import annotations

import difflib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from safecode_guard.errors import GuardError, JudgeError, ModelError
from safecode_guard.judges.asking import write
from safecode_guard.judges.chat import asking_failed, model_id, quiet_config
from safecode_guard.judges.content import image_block
from safecode_guard.judges.deadlines import Strays, call_before, remaining
from safecode_guard.judges.failures import unreadable_reply
from safecode_guard.judges.guard_formats import (
    FORMATS,
    IMAGE_HAZARDS,
    GuardFormat,
    in_order,
    worst,
)
from safecode_guard.judges.parsing import Reply
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.policy import GuardName
from safecode_guard.turns.turn import Turn
from safecode_guard.verdict import Judgement

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from PIL import Image

T = TypeVar("T")

_CAPTION: Final = Sampling(do_sample=False, max_tokens=64)


class Writer(Protocol):
    """A model as far as a guard needs it: it answers conversations, greedily."""

    id: str

    def write(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        template: Mapping[str, Any],
        deadlines: Sequence[float | None],
    ) -> list[str]:
        """Return the answers, in order; empty where time ran out.

        Raises:
            ModelError: If the model cannot be asked.
        """


class ImageClassifier(Protocol):
    """A model that says of a picture how likely it violates each of some policies."""

    id: str

    def violations(self, images: Sequence[Image.Image]) -> list[Mapping[str, float]]:
        """Return for each picture the probability of a violation, by the policy's name."""


class EngineWriter:
    """An engine in this process, or behind it, as a guard's model."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.id = engine.id

    def write(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        template: Mapping[str, Any],
        deadlines: Sequence[float | None],
    ) -> list[str]:
        """Return the answers of the engine."""
        sampling = Sampling(do_sample=False, max_tokens=max_tokens)
        return write(self.engine, turns, sampling, deadlines=deadlines)


class ChatWriter:
    """A chat model as a guard's model: one that a server serves under its own chat template."""

    def __init__(self, model: BaseChatModel, *, id: str | None = None) -> None:
        """Take the model; without an id it is named by what identifies it."""
        self.model = model
        self.id = id or model_id(model)
        self._strays = Strays()

    def write(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        template: Mapping[str, Any],
        deadlines: Sequence[float | None],
    ) -> list[str]:
        """Return the model's answers; the template's options go along as ``extra_body``.

        Raises:
            JudgeError: If the model cannot be asked, or does not answer in time.
        """
        options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0}
        if template:
            options["extra_body"] = {"chat_template_kwargs": dict(template)}
        ask = partial(self._answer, options=options)
        return [
            call_before(deadline, partial(ask, turn), strays=self._strays)
            for turn, deadline in zip(turns, deadlines, strict=True)
        ]

    def _answer(self, turn: Turn, options: Mapping[str, Any]) -> str:
        try:
            reply = self.model.invoke(_messages(turn), config=quiet_config(), **options)
        except Exception as error:  # providers raise errors of their own kinds
            raise asking_failed() from error
        return str(reply.text)


class GuardModelJudge(BaseJudge):
    """Asks a guard model in its own form, and reads its answer strictly.

    A model that reads words alone is given a caption of the pictures; without anyone to write one,
    what has pictures is a failed check.

    Example:
        >>> judge = GuardModelJudge("llama_guard_4", EngineWriter(engine))     # doctest: +SKIP
        >>> judge.judge(request).categories                                    # doctest: +SKIP
        ('violent_crimes',)
    """

    def __init__(
        self,
        form: GuardName | GuardFormat,
        writer: Writer | Callable[[], Writer],
        *,
        id: str | None = None,
        policy: str | None = None,
        captioner: Engine | None = None,
    ) -> None:
        """Make the judge; nothing is asked yet.

        Args:
            form: The name of a published guard model, or a form of your own.
            writer: The model, or what loads it when it is first asked.
            id: Name in verdicts and cache keys; needed where the model is loaded later.
            policy: What a model that is told its policy is told, in place of the form's own.
            captioner: Describes pictures to a model that reads words alone.

        Raises:
            JudgeError: If there is no guard model of that name, or a policy is given to one that
                brings its own.
        """
        made = _form(form) if isinstance(form, str) else form
        if policy is not None and not made.policy:
            raise JudgeError(
                f"{made.name!r} brings a policy of its own and is told none.",
                hint="Leave judge.policy out, or use 'policy', 'llavaguard' or 'qwenguard'.",
            )
        self.form = replace(made, policy=policy) if policy is not None else made
        self.id = id or f"guard:{made.name}:{getattr(writer, 'id', 'model')}"
        self.prompt_version = f"{made.name}-{_digest([self.form.policy, dict(self.form.template)])}"
        self.abilities = JudgeAbilities(
            categories=made.name not in ("granite_guardian", "policy"),
            honours_deadline=True,
            batches=True,
            sees_images=made.sees_images,
        )
        self._writer = _Late(writer)
        self._captioner = captioner

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If the deadline has passed before the model is asked.
            JudgeError: If it cannot be asked, or cannot be shown what there is to judge.
        """
        return self.judge_many([request])[0]

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch; raises as `judge` does."""
        started = time.monotonic()
        for request in requests:
            remaining(request.deadline)
        parts = [self._parts(request) for request in requests]
        captions = self._captions(requests)
        asked = [
            (self.form.turn(part, caption=caption), part.deadline)
            for own, caption in zip(parts, captions, strict=True)
            for part in own
        ]
        written = self._write([turn for turn, _ in asked], [by for _, by in asked])
        if len(written) != len(asked):
            raise JudgeError(f"The guard model gave {len(written)} answers to {len(asked)} turns.")
        texts = iter(written)
        elapsed = (time.monotonic() - started) * 1000
        return [
            self._judgement([self.form.read(next(texts)) for _ in own], caption, elapsed)
            for own, caption in zip(parts, captions, strict=True)
        ]

    def close(self) -> None:
        """Let the model go; asked again, the judge loads it again if it can."""
        self._writer.forget()

    def _parts(self, request: JudgeRequest) -> list[JudgeRequest]:
        """Return the requests to ask about one: with more pictures than it takes, one for each."""
        scene, most = request.scene, self.form.most_images
        if not self.form.sees_images or most is None or len(scene.images) <= most:
            return [request]
        return [
            replace(request, scene=replace(scene, images=(image,), indices=(index,)))
            for image, index in zip(scene.images, scene.indices, strict=True)
        ]

    def _captions(self, requests: Sequence[JudgeRequest]) -> list[str | None]:
        blind = [not self.form.sees_images and bool(r.scene.images) for r in requests]
        if any(blind) and self._captioner is None:
            raise JudgeError(
                f"The guard model {self.form.name!r} reads words alone, and nobody describes "
                "the pictures to it.",
                hint="Set judge.caption, with a guarded model that can describe them.",
            )
        if self._captioner is None or not any(blind):
            return [None] * len(requests)
        asked = [r for r, is_blind in zip(requests, blind, strict=True) if is_blind]
        turns = [request.scene.turn.ask(GENERAL.caption) for request in asked]
        deadlines = [request.deadline for request in asked]
        try:
            written = iter(write(self._captioner, turns, _CAPTION, deadlines=deadlines))
        except ModelError as error:
            raise JudgeError("The pictures could not be described.", hint=error.hint) from error
        captions = [next(written).strip() if is_blind else None for is_blind in blind]
        if any(caption == "" for caption in captions):
            raise JudgeError("The pictures could not be described: nothing was written.")
        return captions

    def _write(self, turns: Sequence[Turn], deadlines: Sequence[float | None]) -> list[str]:
        try:
            return self._writer.get().write(
                turns,
                max_tokens=self.form.max_tokens,
                template=self.form.template,
                deadlines=deadlines,
            )
        except JudgeError:
            raise
        except GuardError as error:
            raise JudgeError("The guard model could not be asked.", hint=error.hint) from error

    def _judgement(
        self, replies: Sequence[Reply], caption: str | None, latency_ms: float
    ) -> Judgement:
        reply = worst(replies)
        if reply.label is None:
            return unreadable_reply(self.id, self.prompt_version, latency_ms=latency_ms)
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=reply.p_unsafe,
            label=reply.label,
            categories=reply.categories,
            caption=caption,
            rationale=reply.rationale,
            parse_status="parsed",
            latency_ms=latency_ms,
        )


class ImageGuardJudge(BaseJudge):
    """Asks a classifier of pictures how likely each violates its policies; the worst counts.

    It looks at pictures alone, whatever is asked about them: a second opinion on what is shown,
    and no judge of requests.
    """

    abilities = JudgeAbilities(categories=True, honours_deadline=True, batches=True)

    def __init__(
        self,
        classifier: ImageClassifier | Callable[[], ImageClassifier],
        *,
        id: str | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Make the judge.

        Args:
            classifier: The model, or what loads it when it is first asked.
            id: Name in verdicts and cache keys; needed where the model is loaded later.
            threshold: At or above this probability a policy's hazard is named.
        """
        self.id = id or f"guard:{getattr(classifier, 'id', 'classifier')}"
        self.prompt_version = f"shieldgemma_2-{threshold:g}"
        self.threshold = threshold
        self._classifier = _Late(classifier)

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request.

        Raises:
            JudgeTimeout: If the deadline has passed before the model is asked.
            JudgeError: If there is no picture to look at, or the model cannot be asked.
        """
        started = time.monotonic()
        remaining(request.deadline)
        if not request.scene.images:
            raise JudgeError("A classifier of pictures was asked about words alone.")
        try:
            found = self._classifier.get().violations([i.pixels for i in request.scene.images])
        except GuardError as error:
            raise JudgeError("The guard model could not be asked.", hint=error.hint) from error
        if len(found) != len(request.scene.images) or not all(map(_is_whole, found)):
            raise JudgeError(
                "The classifier did not give a probability of each policy for every picture.",
                hint="Try another dtype or device.",
                reason="the classifier's probabilities are none, or of other pictures",
            )
        named = {name for each in found for name, p in each.items() if p >= self.threshold}
        return Judgement(
            judge_id=self.id,
            prompt_version=self.prompt_version,
            p_unsafe=max(p for each in found for p in each.values()),
            categories=in_order({IMAGE_HAZARDS.get(name, "situational") for name in named}),
            parse_status="logits",
            latency_ms=(time.monotonic() - started) * 1000,
        )

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests one after another; raises as `judge` does."""
        return [self.judge(request) for request in requests]

    def close(self) -> None:
        """Let the model go; asked again, the judge loads it again if it can."""
        self._classifier.forget()


def _form(name: str) -> GuardFormat:
    if name == "shieldgemma_2":
        raise JudgeError(
            "'shieldgemma_2' classifies pictures and writes nothing.", hint="Use ImageGuardJudge."
        )
    if form := FORMATS.get(cast("GuardName", name)):
        return form
    close = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(FORMATS)}."
    raise JudgeError(f"There is no guard model {name!r}.", hint=hint)


def _is_whole(found: Mapping[str, float]) -> bool:
    """Return whether what is said of a picture is probabilities: max() would lose a NaN."""
    return bool(found) and all(0 <= p <= 1 for p in found.values())


def _messages(turn: Turn) -> list[BaseMessage]:
    """Return a guard's conversation as LangChain's messages, with the pictures inline."""
    from langchain_core.messages import AIMessage, HumanMessage

    made: list[BaseMessage] = []
    for message in turn.messages:
        if message.role == "assistant":
            made.append(AIMessage(message.text))
            continue
        content: list[Any] = [image_block(turn.images[i].pixels) for i in message.image_indices]
        made.append(HumanMessage([*content, {"type": "text", "text": message.text}]))
    return made


class _Late(Generic[T]):
    """A thing that is there, or is made when it is first asked for."""

    def __init__(self, given: T | Callable[[], T]) -> None:
        self._make = given if callable(given) and not hasattr(given, "id") else None
        self._made = None if self._make else given
        self._lock = threading.Lock()

    def get(self) -> T:
        """Return the thing."""
        with self._lock:
            if self._made is None and self._make is not None:
                self._made = self._make()
            return cast("T", self._made)

    def forget(self) -> None:
        """Let go of what can be made again."""
        with self._lock:
            if self._make is not None:
                self._made = None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
