"""`SafeCoDeGuard`: the guardrail around a chat model, itself a chat model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from langchain_core.language_models import ModelProfile
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from safecode_guard.errors import GuardError, PolicyError
from safecode_guard.models.families import GENERIC
from safecode_guard.pipeline.examiner import Examiner, Sink
from safecode_guard.pipeline.factory import make_examiner, make_turns
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest
from safecode_guard.policy import Policy, kinds_of
from safecode_guard.runnables.checking import Checking
from safecode_guard.runnables.messages import AnswerShape
from safecode_guard.runnables.runs import run_of
from safecode_guard.runnables.served import Call, ServedChatModel
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.runnables.vision_model import ChatVisionModel
from safecode_guard.runnables.wrapped import Wrapped, wrapped
from safecode_guard.settings import SafeCoDeSettings, warn_of_unread
from safecode_guard.steering.factory import make_strategy
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn

_FIXED: Final = frozenset({"model", "judge", "strategy", "policy", "sinks"})


class SafeCoDeGuard(Checking, ServedChatModel):
    """A chat model whose image-bearing turns are judged, and steered by the verdict.

    It composes like any chat model: in sequences, branches, agents and graphs. The verdict is on
    the message (`Verdict.from_message`), in the custom event ``safecode.verdict``, and goes to
    every `VerdictHandler`. Model, judge, strategy and policy cannot be changed afterwards: make
    another guard.

    Example:
        >>> guard = SafeCoDeGuard(model=ChatTransformers.tiny())      # doctest: +SKIP
        >>> Verdict.from_message(guard.invoke(messages)).action       # doctest: +SKIP
        'guide'
    """

    model: BaseChatModel
    """The guarded model, or its hub name or directory, or ``tiny``; `ChatTransformers`, unless
    ``policy.mode`` is ``judge_only``."""
    judge: Any = Field(default=None, exclude=True)
    """A judge or a LangChain chat model; None: as the policy says (the same model)."""
    strategy: Any = Field(default=None, exclude=True)
    """A strategy of your own; None: as the policy says."""
    policy: Policy = Policy()
    """The policy, or the name of a preset."""
    sinks: tuple[Sink, ...] = Field(default=(), exclude=True, repr=False)
    """Who else is told every verdict before anything is handed out, such as an `AuditLog`. What a
    sink raises ends the turn, and no answer is taken from LangChain's cache, which tells nobody."""

    _loading: Any = PrivateAttr(default_factory=threading.RLock)
    _wrapped: Wrapped = PrivateAttr()
    _pictures: PictureStore = PrivateAttr()
    _served: GuardedTurns | None = PrivateAttr(default=None)
    _examiner: Examiner | None = PrivateAttr(default=None)
    _made: bool = PrivateAttr(default=False)

    def __init__(self, **fields: Any) -> None:
        """Make the guard.

        Raises:
            LogitsUnavailable: If the model cannot be steered and the policy wants it to be.
            PolicyError: If policy, model, judge and strategy do not go together.
            UnknownArgument: For an argument that the guard does not have.
        """
        if "policy" not in fields:
            warn_of_unread("SafeCoDeGuard", meant="SafeCoDeGuard.from_settings(model)")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            causes = [detail.get("ctx", {}).get("error") for detail in error.errors()]
            for cause in causes:
                if isinstance(cause, GuardError):
                    raise cause from None
            raise PolicyError(
                f"The guard cannot be made. {_wrong(error)}", hint="See SafeCoDeGuard's fields."
            ) from None
        self._made = True

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_name(cls, value: Any) -> Any:
        return ChatTransformers.named(value) if isinstance(value, str | Path) else value

    @field_validator("policy", mode="before")
    @classmethod
    def _policy_by_name(cls, value: Any) -> Any:
        return Policy.of(value)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self._wrapped = wrapped(self.model, self.policy)
        self._pictures = PictureStore(self.policy.images.cache_bytes)
        if self.sinks:
            self.cache = False  # an answer that LangChain has kept is told to nobody
        if self.policy.mode == "guard":
            make_strategy(self.policy.decoding, GENERIC, self.strategy)
        if not self._judges_itself():
            self.examiner  # noqa: B018  a policy that does not fit its judge must not start
        elif self.policy.category_actions:
            raise PolicyError(
                "category_actions are set, but a model that judges itself names no categories.",
                hint="Remove them, or use a judge that names hazards.",
            )
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change what the guard is made of: it would silently not be in force.

        Raises:
            PolicyError: If such a field is set after construction.
        """
        if name in _FIXED and (self.__pydantic_private__ or {}).get("_made"):
            raise _unchangeable(name)
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, which is made of the same things.

        Raises:
            PolicyError: If one of them is to be another: it would silently not be in force.
        """
        for name in _FIXED.intersection(update or ()):
            raise _unchangeable(name)
        return super().model_copy(update=update, deep=deep)

    @classmethod
    def from_settings(
        cls,
        model: BaseChatModel,
        settings: SafeCoDeSettings | None = None,
        *,
        judge: Any = None,
        strategy: Any = None,
        **overrides: Any,
    ) -> Self:
        """Return a guard whose policy comes from the environment and a policy file.

        Args:
            model: The model to guard.
            settings: Loaded settings; None loads them now.
            judge: A judge or chat model of your own.
            strategy: A strategy of your own.
            **overrides: Parts of the policy that win over everything else.

        Raises:
            PolicyError: If the policy is missing, empty or invalid.
        """
        if settings is None:
            policy = SafeCoDeSettings(**overrides).policy()
        else:
            policy = settings.policy().updated(**overrides)
        return cls(model=model, judge=judge, strategy=strategy, policy=policy)

    def under(self, policy: Policy) -> Self:
        """Return this guard under another policy: the same model, judges, memory and sinks.

        What the policy says of its judges, of the model's steering and of the mode is not looked
        at again: they are those of this guard.
        """
        made = super().model_copy()
        made.__dict__["policy"] = policy
        made._examiner, made._served = self.examiner.under(policy), None
        return made

    # -- judging only -------------------------------------------------------------------------

    @property
    def examiner(self) -> Examiner:
        """What routes, judges and concludes; loads the judging model on first use."""
        with self._loading:
            if self._examiner is None:
                self._examiner = make_examiner(
                    self.policy,
                    engine=self._judging_engine(),
                    judge=self.judge,
                    strategy=self.strategy,
                    steers=self.policy.mode == "guard",
                    sinks=self.sinks,
                )
            return self._examiner

    # -- serving ------------------------------------------------------------------------------

    def _judges_itself(self) -> bool:
        own = self.judge is None and self.policy.judge.kind == "same_model"
        return own and self._wrapped.judges_itself

    def _judging_engine(self) -> Any:
        """Return the engine that judges, if a model that can judge itself is asked to."""
        kinds = set(kinds_of(self.policy.judge)) if self.judge is None else set()
        kinds |= {kind for _, config in self.policy.stages.judges() for kind in kinds_of(config)}
        if kinds.isdisjoint(("same_model", "ras")) or not isinstance(self.model, ChatVisionModel):
            return None
        return self.model.engine

    @property
    def _turns(self) -> GuardedTurns:
        with self._loading:
            if self._served is None:
                self._served = make_turns(
                    self._wrapped.engine,
                    self.examiner,
                    strategy=self.strategy,
                    admission=self._wrapped.admission,
                )
            return self._served

    @property
    def _batches(self) -> bool:
        return self._wrapped.batches

    def _request(self, messages: list[BaseMessage], call: Call) -> tuple[TurnRequest, AnswerShape]:
        asked = self._wrapped.asked(call.stop, call.options)
        deadline = self.policy.deadline_from(call.started)
        turn = read_turn(messages, self.policy.images, pictures=self._pictures, deadline=deadline)
        request = TurnRequest(
            turn,
            asked.sampling,
            asked.form.tools,
            constraint=asked.constraint,
            refusal=asked.refusal,
            forced=asked.forced,
            options=asked.options or {},
            run=run_of(call.run_manager),
            deadline=deadline,
            live=call.live,
            cache_scope=call.options.get("cache_scope"),
            trace=bool(call.options.get("safecode_trace", False)),
            cancelled=call.cancelled,
        )
        return request, asked.shape

    # -- what LangChain asks ------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "safecode-guard"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "policy": self._digest(),
            "model": {"type": self.model._llm_type, **self.model._identifying_params},
        }

    def _digest(self) -> str:
        """Return the digest that verdicts carry, without loading a model for it."""
        if not self._judges_itself():
            return self.examiner.digest
        return self.policy.digest(**({"strategy": self.strategy.id} if self.strategy else {}))

    def _resolve_model_profile(self) -> ModelProfile | None:
        return self.model.profile

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.model._get_ls_params(stop=stop, **kwargs)

    # -- tools and structured output: the guard stays outermost -------------------------------

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the guard with tools bound, in the form the guarded model wants."""
        return self._wrapped.bind_tools(self, tools, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a guarded chain whose answers follow a schema; see `structured`.

        A forced schema cannot refuse: on any verdict but safe the turn raises `TurnBlocked`,
        unless ``allow_refusal=True`` gives the schema a refusal branch.
        """
        return self._wrapped.structured(self, schema, include_raw=include_raw, **kwargs)


def _wrong(error: ValidationError) -> str:
    """Return one sentence on each wrong argument, without what was given."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    return " ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}." for each in details)


def _unchangeable(name: str) -> PolicyError:
    return PolicyError(
        f"A guard's {name} cannot be changed.",
        hint=f"Make another: SafeCoDeGuard(model=guard.model, {name}=...).",
    )
