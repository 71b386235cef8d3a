"""`SafeCoDeGuard`: the guardrail around a chat model, itself a chat model."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import ModelProfile
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from safecode_guard.errors import LogitsUnavailable, PolicyError
from safecode_guard.judges.protocol import JudgeRequest, PromptingJudge
from safecode_guard.pipeline import (
    Examiner,
    Pipeline,
    TurnRequest,
    make_examiner,
    subject_of,
)
from safecode_guard.policy import Policy
from safecode_guard.runnables.delegate import Delegate, rebind_structured, rebind_tools
from safecode_guard.runnables.events import current_run, emit_verdict
from safecode_guard.runnables.messages import AnswerShape
from safecode_guard.runnables.served import ServedChatModel, in_this_context
from safecode_guard.runnables.structured import Output, constraints, structured
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.settings import SafeCoDeSettings
from safecode_guard.steering.factory import make_strategy
from safecode_guard.steering.safecode.parameters import resolve
from safecode_guard.turns.reading import read_turn
from safecode_guard.verdict import Verdict


class SafeCoDeGuard(ServedChatModel):
    """A chat model whose image-bearing turns are judged, and steered by the verdict.

    It composes like any chat model: in sequences, branches, agents and graphs. The verdict is on
    the message (`Verdict.from_message`), in the custom event ``safecode.verdict``, and goes to
    every `VerdictHandler`.

    Example:
        >>> guard = SafeCoDeGuard(model=ChatTransformers.tiny())      # doctest: +SKIP
        >>> Verdict.from_message(guard.invoke(messages)).action       # doctest: +SKIP
        'guide'
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model: BaseChatModel
    """The guarded model; `ChatTransformers`, unless ``policy.mode`` is ``judge_only``."""
    judge: Any = Field(default=None, exclude=True)
    """A judge or a LangChain chat model; None: as the policy says (the same model)."""
    strategy: Any = Field(default=None, exclude=True)
    """A strategy of your own; None: as the policy says."""
    policy: Policy = Policy()

    _loading: Any = PrivateAttr(default_factory=threading.RLock)
    _served: Pipeline | None = PrivateAttr(default=None)
    _examiner: Examiner | None = PrivateAttr(default=None)

    def __init__(self, **fields: Any) -> None:
        """Make the guard.

        Raises:
            LogitsUnavailable: If the model cannot be steered and the policy wants it to be.
            PolicyError: If policy, model, judge and strategy do not go together.
        """
        try:
            super().__init__(**fields)
        except ValidationError as error:
            causes = [detail.get("ctx", {}).get("error") for detail in error.errors()]
            for cause in causes:
                if isinstance(cause, PolicyError):
                    raise cause from None
            raise

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.policy.mode == "guard" and not isinstance(self.model, ChatTransformers):
            raise LogitsUnavailable(
                f"{type(self.model).__name__} gives no access to its logits, so it cannot be "
                "steered.",
                hint='Guard a ChatTransformers, or set policy.mode to "judge_only".',
            )
        make_strategy(self.policy.decoding, self.strategy)
        if self.judge is not None or not self._judges_itself():
            self.examiner  # noqa: B018  a policy that does not fit its judge must not start
        elif self.policy.category_actions:
            raise PolicyError(
                "category_actions are set, but a model that judges itself names no categories.",
                hint="Remove them, or use a judge that names hazards.",
            )
        return self

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

    # -- judging only -------------------------------------------------------------------------

    @property
    def examiner(self) -> Examiner:
        """What routes and judges; loads the judging model on first use."""
        with self._loading:
            if self._examiner is None:
                own = self.judge is None and self._judges_itself()
                self._examiner = make_examiner(
                    self.policy,
                    model=self._guarded.vlm if own else None,
                    judge=self.judge,
                    strategy=self.strategy,
                    steers=self.policy.mode == "guard",
                )
            return self._examiner

    def check(
        self, messages: LanguageModelInput, *, tool_call: dict[str, Any] | None = None
    ) -> Verdict:
        """Judge a conversation, or a tool call in it; nothing is generated.

        A turn that the policy does not judge comes back with the action ``pass`` and no label.
        """
        return self.examiner.check(self._subject(messages, tool_call))

    async def acheck(
        self, messages: LanguageModelInput, *, tool_call: dict[str, Any] | None = None
    ) -> Verdict:
        """Judge a conversation without blocking the event loop; see `check`."""
        return await self.examiner.acheck(self._subject(messages, tool_call))

    def _subject(self, messages: LanguageModelInput, call: dict[str, Any] | None) -> JudgeRequest:
        turn = read_turn(self._convert_input(messages).to_messages(), self.policy.images)
        return subject_of(turn, call, deadline=self._deadline())

    # -- serving ------------------------------------------------------------------------------

    @property
    def _guarded(self) -> ChatTransformers:
        assert isinstance(self.model, ChatTransformers)
        return self.model

    def _judges_itself(self) -> bool:
        return self.policy.judge.kind == "same_model" and isinstance(self.model, ChatTransformers)

    def _pipeline(self) -> Pipeline:
        with self._loading:
            if self._served is None:
                model, decoding = self._guarded, self.policy.decoding
                self._served = Pipeline(
                    model.vlm,
                    self.examiner,
                    strategy=make_strategy(decoding, self.strategy),
                    parameters=resolve(decoding, model.vlm.family.steering),
                    turnstile=model.turnstile,
                )
            return self._served

    def _request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: dict[str, Any],
    ) -> tuple[TurnRequest, AnswerShape]:
        model, output = self._guarded, Output.from_options(options)
        constraint, refusal = constraints(model.vlm, output)
        request = TurnRequest(
            read_turn(messages, self.policy.images),
            model.sampling(stop, options),
            output.tools,
            constraint=constraint,
            refusal=refusal,
            on_verdict=in_this_context(lambda verdict: emit_verdict(verdict, run_manager)),
            run_id=_run_id(run_manager),
            deadline=self._deadline(),
            trace=bool(options.get("safecode_trace", False)),
        )
        return request, model.shape(output)

    async def _arequest(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: dict[str, Any],
    ) -> tuple[TurnRequest, AnswerShape]:
        request, shape = await super()._arequest(messages, stop, run_manager, options)
        examiner = self.examiner
        own = isinstance(examiner.judge, PromptingJudge)
        if own or examiner.route(request.turn).kind != "judge":
            return request, shape
        question = JudgeRequest("input", request.turn, deadline=request.deadline)
        return replace(request, judgement=await examiner.ajudge(question)), shape

    def _deadline(self) -> float | None:
        seconds = self.policy.deadline_s
        return None if seconds is None else time.monotonic() + seconds

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.policy.mode == "judge_only":
            return self._delegate().generate(messages, stop, run_manager, kwargs)
        return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.policy.mode == "judge_only":
            return await self._delegate().agenerate(messages, stop, run_manager, kwargs)
        return await super()._agenerate(messages, stop, run_manager, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if self.policy.mode == "judge_only":
            return self._delegate().stream(messages, stop, run_manager, kwargs)
        return super()._stream(messages, stop, run_manager, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self.policy.mode == "judge_only":
            chunks = self._delegate().astream(messages, stop, run_manager, kwargs)
        else:
            chunks = super()._astream(messages, stop, run_manager, **kwargs)
        async for chunk in chunks:
            yield chunk

    def _delegate(self) -> Delegate:
        return Delegate(self.model, self.examiner)

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
        if self.judge is not None or not self._judges_itself():
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
        return rebind_tools(self, self.model, tools, kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a guarded chain whose answers follow a schema; see `structured`.

        A forced schema cannot refuse: on any verdict but safe the turn raises `TurnBlocked`,
        unless ``allow_refusal=True`` gives the schema a refusal branch.
        """
        if isinstance(self.model, ChatTransformers):
            return structured(self, schema, include_raw=include_raw, **kwargs)
        return rebind_structured(self, self.model, schema, include_raw=include_raw, **kwargs)


def _run_id(run_manager: CallbackManagerForLLMRun | None) -> str | None:
    if run_manager is not None:
        return str(run_manager.run_id)
    run = current_run.get()
    return None if run is None else str(run[1])
