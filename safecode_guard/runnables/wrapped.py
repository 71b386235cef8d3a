"""The model that a guard wraps, as the guard uses it: steered in this process, or only called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import Runnable

from safecode_guard.engines.delegate import DelegateEngine
from safecode_guard.errors import LogitsUnavailable
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.output.request import Maker, OutputForm, is_forced
from safecode_guard.pipeline.admission import Admission
from safecode_guard.policy import Policy
from safecode_guard.runnables.arguments import require_values
from safecode_guard.runnables.messages import AnswerShape
from safecode_guard.runnables.structured import FORCED, rebind_structured, rebind_tools
from safecode_guard.runnables.vision_model import ChatVisionModel
from safecode_guard.turns.options import require_no_media


@dataclass(frozen=True)
class Asked:
    """What one call's options ask of the wrapped model."""

    sampling: Sampling
    form: OutputForm
    shape: AnswerShape
    constraint: Maker | None = None
    refusal: Maker | None = None
    forced: bool = False
    options: Mapping[str, Any] | None = None
    """Passed on to the model as they are."""


class Wrapped(Protocol):
    """What a guard needs of the model that it wraps."""

    batches: bool
    """Whether turns that are decoded together cost less than one by one."""
    judges_itself: bool
    """Whether the model can be the judge of its own turns."""

    @property
    def engine(self) -> Engine:
        """What answers; loads weights on first use."""

    @property
    def admission(self) -> Admission:
        """The queue before the engine."""

    def asked(self, stop: list[str] | None, options: Mapping[str, Any]) -> Asked:
        """Read the options of one call.

        Raises:
            GuardError: If an option is unknown or cannot be honoured.
        """

    def bind_tools(
        self, guard: BaseChatModel, tools: Sequence[Any], **options: Any
    ) -> Runnable[Any, Any]:
        """Return the guard with tools bound, in the form the model wants."""

    def structured(self, guard: BaseChatModel, schema: Any, **options: Any) -> Runnable[Any, Any]:
        """Return a guarded chain whose answers follow a schema."""


def wrapped(model: BaseChatModel, policy: Policy) -> Wrapped:
    """Return a model as its guard uses it under a policy.

    Raises:
        LogitsUnavailable: If the policy wants to steer a model that cannot be steered.
    """
    if policy.mode == "judge_only":
        return CalledModel(model, policy)
    if not isinstance(model, ChatVisionModel):
        raise LogitsUnavailable(
            f"{type(model).__name__} gives no access to its logits, so it cannot be steered.",
            hint='Guard a ChatTransformers or a ChatVLLM, or set policy.mode to "judge_only".',
        )
    return SteeredModel(model)


class SteeredModel:
    """A chat model whose engine is in reach."""

    batches = True
    judges_itself = True

    def __init__(self, model: ChatVisionModel) -> None:
        self._model = model

    @property
    def engine(self) -> Engine:
        """The model's own."""
        return self._model.engine

    @property
    def admission(self) -> Admission:
        """The model's own, shared by every guard around it."""
        return self._model.admission

    def asked(self, stop: list[str] | None, options: Mapping[str, Any]) -> Asked:
        """Read the options of one call; see `Wrapped.asked`."""
        require_values(options)
        form = OutputForm.from_options(options)
        constraint, refusal = self._model.grammars(form)
        return Asked(
            self._model.sampling(stop, options),
            form,
            self._model.shape(form),
            constraint,
            refusal,
            forced=form.forced,
            options=self._model.passed(form),
        )

    def bind_tools(
        self, guard: BaseChatModel, tools: Sequence[Any], **options: Any
    ) -> Runnable[Any, Any]:
        """Return the guard with tools bound as the model binds them."""
        return rebind_tools(guard, self._model, tools, options)

    def structured(self, guard: BaseChatModel, schema: Any, **options: Any) -> Runnable[Any, Any]:
        """Return a guarded chain whose answers follow a schema, by grammar."""
        return self._model.structured(guard, schema, **options)


class CalledModel:
    """Any chat model, called as it is: no steering."""

    batches = False

    def __init__(self, model: BaseChatModel, policy: Policy) -> None:
        self._model = model
        self.engine: Engine = DelegateEngine(model, policy.images)
        self.admission = Admission.unlimited()
        self.judges_itself = isinstance(model, ChatVisionModel)

    def asked(self, stop: list[str] | None, options: Mapping[str, Any]) -> Asked:
        """Pass the options of one call on: the model knows its own.

        Raises:
            UnsupportedMedia: If one of them holds a picture, which nobody would judge.
        """
        passed = {**options, **({"stop": stop} if stop is not None else {})}
        passed.pop("safecode_trace", None)
        if not self.judges_itself:
            passed.pop("cache_scope", None)
        require_no_media(passed)
        marked = bool(passed.pop(FORCED, False))
        return Asked(
            Sampling(),
            OutputForm(),
            AnswerShape(self._model._llm_type),
            forced=marked or is_forced(options),
            options=passed,
        )

    def bind_tools(
        self, guard: BaseChatModel, tools: Sequence[Any], **options: Any
    ) -> Runnable[Any, Any]:
        """Return the guard with tools bound as the model binds them."""
        return rebind_tools(guard, self._model, tools, options)

    def structured(self, guard: BaseChatModel, schema: Any, **options: Any) -> Runnable[Any, Any]:
        """Return the model's own chain with the guard in the model's place."""
        return rebind_structured(guard, self._model, schema, **options)
