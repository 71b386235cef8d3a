"""Every error the library raises, in one tree.

    GuardError
    ├── ImageError               an image or other media that cannot be judged
    │   ├── UnreadableImage      bytes that are no image, malformed base64, truncated files
    │   ├── ImageTooLarge        over the policy's byte, pixel or count limit (bombs included)
    │   ├── ForbiddenSource      a URL or path that the policy does not allow
    │   ├── UnsupportedMedia     audio, video, documents, unknown blocks, animated files
    │   └── FetchFailed          an allowed URL that could not be fetched
    ├── ModelError               the model cannot do what was asked
    │   ├── LogitsUnavailable    (also a TypeError) no access to logits, so no steering
    │   ├── UnsupportedFamily    the architecture cannot be loaded here (e.g. needs torchvision)
    │   ├── TemplateError        the chat template refuses the conversation's layout
    │   ├── UnsupportedGeneration  an option the loop cannot honour, e.g. num_beams > 1
    │   ├── ConstraintError      a forced schema or tool that cannot be compiled or followed
    │   ├── ModelUnavailable     its server cannot be reached, or refuses to answer
    │   └── SteeringUnproven     nothing proves that its server steered; the answer is withheld
    ├── JudgeError               the check failed (this is not a verdict)
    │   ├── JudgeTimeout         it did not answer before its deadline
    │   └── JudgeUnavailable     its server cannot be reached, or refuses to answer
    ├── UnreadableCall           a tool call that cannot be judged: no name, no plain arguments
    ├── UnknownArgument          (also a TypeError) an argument that nothing has; names the near one
    ├── PolicyError              a policy that is missing, empty, unknown or contradictory
    ├── DataError                a benchmark's data that is missing, malformed or told twice
    ├── AuditError               a verdict that cannot be recorded, or a log that cannot be read
    ├── TurnBlocked              the verdict blocks the turn; carries the verdict
    ├── TurnTimeout              the turn's deadline passed
    └── Overloaded               too many turns are waiting

Errors carry their data as attributes and end with what to do (``hint``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safecode_guard.verdict import Verdict


def listed(names: Iterable[object]) -> str:
    """Return names as a sentence lists them, sorted.

    Example:
        >>> print(listed(["b", "a"]))
        'a', 'b'
    """
    return ", ".join(map(repr, sorted(map(str, names))))


def likely(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return a hint at the known name that a misspelt one is like, or else at all of them.

    Example:
        >>> likely("stirct", ["balanced", "strict"])
        "Did you mean 'strict'?"
        >>> likely("x", ["balanced", "strict"])
        'Use one of balanced, strict.'
    """
    names = list(known)
    if close := difflib.get_close_matches(name, names, n=1):
        return f"Did you mean {close[0]!r}?"
    return otherwise or f"Use one of {', '.join(names)}."


class GuardError(Exception):
    """Base of all errors of this library; ``hint`` says what to do about it."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ImageError(GuardError):
    """An image or other media that cannot be judged.

    ``message_index`` and ``block_index`` say where it sits in the conversation, and ``what`` is
    the message without that.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        message_index: int | None = None,
        block_index: int | None = None,
    ) -> None:
        where = "" if message_index is None else f" (message {message_index}, block {block_index})"
        super().__init__(message + where, hint=hint)
        self.what = message
        self.message_index = message_index
        self.block_index = block_index


class UnreadableImage(ImageError):
    """The bytes are no image in an allowed format, or the base64 is malformed."""


class ImageTooLarge(ImageError):
    """The image is over the policy's byte, pixel or count limit."""


class ForbiddenSource(ImageError):
    """The image comes from a URL or path that the policy does not allow."""


class UnsupportedMedia(ImageError):
    """The block holds media that an image guard cannot judge."""


class FetchFailed(ImageError):
    """An allowed URL could not be fetched within the policy's limits."""


class ModelError(GuardError):
    """The model cannot do what was asked."""


class LogitsUnavailable(ModelError, TypeError):
    """The model gives no access to its logits, so it cannot be steered."""


class UnsupportedFamily(ModelError):
    """The architecture cannot be loaded in this environment."""


class TemplateError(ModelError):
    """The model's chat template refuses the layout of the conversation."""


class UnsupportedGeneration(ModelError):
    """A generation option that the decoding loop cannot honour."""


class ConstraintError(ModelError):
    """A forced schema or tool that cannot be compiled, or was not followed."""


class ModelUnavailable(ModelError):
    """The model's server cannot be reached, or refuses to answer.

    ``status`` is its HTTP status; None: there was no answer. ``reply`` is the beginning of what it
    said, which may quote the conversation and is therefore not in the message.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        reply: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reply = reply


class SteeringUnproven(ModelError):
    """Nothing proves that the model's server steered an answer, so none of it was released."""


class JudgeError(GuardError):
    """The judge failed. A failed check is not a verdict.

    ``reason`` says why in words that may stand in verdicts and logs: it quotes nothing of the
    conversation, and no key.
    """

    def __init__(self, message: str, *, hint: str | None = None, reason: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class JudgeTimeout(JudgeError):
    """The judge did not answer before its deadline."""


class JudgeUnavailable(JudgeError):
    """The judge's server cannot be reached, or refuses to answer.

    ``status`` is its HTTP status; None: there was no answer. ``retry_after`` is how many seconds
    it asks to be left alone.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        reason: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.status = status
        self.retry_after = retry_after


class UnreadableCall(GuardError, ValueError):
    """A tool call that cannot be judged: without a name, or with arguments that are no data."""


class UnknownArgument(GuardError, TypeError):
    """A constructor or a call was given an argument that it does not have."""


class PolicyError(GuardError, ValueError):
    """A policy that is missing, empty, unknown or contradictory."""


class DataError(GuardError):
    """A benchmark's data set that is missing, malformed, or has an entry twice.

    ``file``, ``entry`` and ``field`` say where; None: the error is not about one. The hint says
    where the data set is to be had.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        file: str | None = None,
        entry: str | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.entry = entry
        self.field = field


class AuditError(GuardError):
    """A verdict that cannot be recorded, or an audit log that cannot be read."""


class TurnBlocked(GuardError):
    """The turn was blocked; ``verdict`` says why."""

    def __init__(self, verdict: Verdict, *, hint: str | None = None) -> None:
        super().__init__(
            f"The turn was stopped: label {verdict.label!r}, action {verdict.action!r}, "
            f"stage {verdict.stage!r}.",
            hint=hint or "Branch on Verdict.action, or set policy.on_block to 'message'.",
        )
        self.verdict = verdict


class TurnTimeout(GuardError):
    """The turn's deadline (``policy.deadline_s``) passed."""


class Overloaded(GuardError):
    """More turns are waiting for the model than ``max_waiting`` allows."""
