"""`ChatVisionModel`: what chat models on an engine have in common, whatever the engine is."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import ModelProfile
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from safecode_guard.errors import LogitsUnavailable, UnsupportedGeneration
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.output.request import Maker, OutputForm, constraints
from safecode_guard.pipeline.admission import Admission
from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.requests import TurnRequest
from safecode_guard.pipeline.unguarded import unguarded
from safecode_guard.policy import PREFIX_CACHE_BYTES, ImagePolicy
from safecode_guard.runnables.arguments import CALL, require_known, require_stops, require_values
from safecode_guard.runnables.messages import PROVIDER, AnswerShape
from safecode_guard.runnables.served import Call, ServedChatModel
from safecode_guard.runnables.structured import structured
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.reading import read_turn

_UNSUPPORTED = {"num_beams": 1, "num_return_sequences": 1, "n": 1, "num_beam_groups": 1}


class ChatVisionModel(ServedChatModel):
    """A vision-language model on an engine as a LangChain chat model, not guarded."""

    model_config = ConfigDict(
        arbitrary_types_allowed=True, populate_by_name=True, protected_namespaces=()
    )

    model_name: str = Field(alias="model")
    """Hub name or directory, or the name under which a server has it."""
    temperature: float | None = Field(default=None, ge=0)
    """0 decodes greedily; None leaves the model's own generation config in force."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    seed: int | None = None
    max_tokens: int = Field(default=512, gt=0)
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    images: ImagePolicy = ImagePolicy()
    """Limits for images; one that breaks them raises `ImageError`."""
    prefix_cache_bytes: int = Field(default=PREFIX_CACHE_BYTES, ge=0)
    """Prefilled prompts kept for turns that begin alike, where the model is in this process; under
    a guard its policy's key of the same name counts."""
    max_active: int = Field(default=4, gt=0)
    """Turns (or batches) that may hold caches on the model at a time."""
    max_waiting: int = Field(default=64, ge=0)
    """Turns that may wait before `Overloaded` is raised."""

    _opening: Any = PrivateAttr(default_factory=threading.Lock)
    _engine: Engine | None = PrivateAttr(default=None)
    _admission: Admission | None = PrivateAttr(default=None)
    _pictures: PictureStore | None = PrivateAttr(default=None)

    @abstractmethod
    def _open(self) -> Engine:
        """Return the engine, its weights loaded."""

    @property
    def engine(self) -> Engine:
        """The engine behind; loads its weights on first use."""
        if self._engine is None:
            with self._opening:
                if self._engine is None:
                    self._engine = self._open()
        return self._engine

    @property
    def admission(self) -> Admission:
        """The queue before the model, shared by every guard around it."""
        with self._opening:
            if self._admission is None:
                self._admission = Admission(active=self.max_active, waiting=self.max_waiting)
            return self._admission

    @property
    def pictures(self) -> PictureStore:
        """Pictures decoded already, shared by every guard around the model."""
        with self._opening:
            if self._pictures is None:
                self._pictures = PictureStore(self.images.cache_bytes)
            return self._pictures

    # -- serving ------------------------------------------------------------------------------

    @property
    def _turns(self) -> GuardedTurns:
        return unguarded(self.engine, self.admission, prefix_cache_bytes=self.prefix_cache_bytes)

    def _request(self, messages: list[BaseMessage], call: Call) -> tuple[TurnRequest, AnswerShape]:
        require_values(call.options)
        form = OutputForm.from_options(call.options)
        constraint, refusal = self.grammars(form)
        request = TurnRequest(
            read_turn(messages, self.images, strict=True, pictures=self.pictures),
            self.sampling(call.stop, call.options),
            form.tools,
            constraint=constraint,
            refusal=refusal,
            options=self.passed(form),
            live=call.live,
            cache_scope=call.options.get("cache_scope"),
            cancelled=call.cancelled,
        )
        return request, self.shape(form)

    def grammars(self, form: OutputForm) -> tuple[Maker | None, Maker | None]:
        """Return what makes the grammar of an answer's form, and of its refusal branch.

        Raises:
            ConstraintError: If a schema cannot be compiled.
            LogitsUnavailable: If the engine has no vocabulary to compile it against.
        """
        if not form.forced:
            return None, None
        vocabulary = self.engine.vocabulary
        if vocabulary is None or not self.engine.abilities.grammar:
            raise LogitsUnavailable(
                "This engine cannot hold an answer to a form.", hint="Use one in this process."
            )
        return constraints(vocabulary, form)

    def passed(self, form: OutputForm) -> dict[str, Any]:
        """Return what the engine itself is told of an answer's form, where it has no grammar."""
        return {}

    def shape(self, form: OutputForm) -> AnswerShape:
        """Return the form in which answers are given."""
        names = tuple(tool["function"]["name"] for tool in form.tools)
        return AnswerShape(self.model_name, names, form.forced_tool)

    def sampling(self, stop: list[str] | None, options: Mapping[str, Any]) -> Sampling:
        """Return how tokens are drawn for one call: its options over this model's fields.

        Raises:
            UnknownArgument: For an option that nothing has.
            UnsupportedGeneration: For beam search and several answers at once.
        """
        require_known("A call", options, CALL)
        require_stops(stop or options.get("stop_sequences"))
        for name, allowed in _UNSUPPORTED.items():
            if options.get(name) not in (None, allowed):
                raise UnsupportedGeneration(
                    f"{name}={options[name]!r} is not supported.",
                    hint="Steering follows one answer token by token; sample, or decode greedily.",
                )

        def value(name: str) -> Any:
            given = options.get(name)
            return getattr(self, name) if given is None else given

        temperature = value("temperature")
        stops = stop or options.get("stop_sequences") or self.stop or ()
        return Sampling(
            do_sample=None if temperature is None else temperature > 0,
            temperature=temperature or None,
            top_p=value("top_p"),
            top_k=value("top_k"),
            repetition_penalty=value("repetition_penalty"),
            seed=value("seed"),
            max_tokens=options.get("max_completion_tokens") or value("max_tokens"),
            stop=(stops,) if isinstance(stops, str) else tuple(stops),
        )

    # -- what LangChain asks ------------------------------------------------------------------

    def _resolve_model_profile(self) -> ModelProfile:
        return ModelProfile(
            image_inputs=True,
            image_url_inputs=False,
            image_tool_message=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = PROVIDER
        params["ls_model_name"] = kwargs.get("model", self.model_name)
        return params

    # -- tools and structured output ----------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools bound; a forced choice is decoded under a grammar."""
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **choice, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a chain whose answers follow a schema, by grammar; see `structured`."""
        return self.structured(self, schema, include_raw=include_raw, **kwargs)

    def structured(
        self, model: BaseChatModel, schema: dict[str, Any] | type, **options: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return such a chain around a chat model, this one or a guard of it."""
        return structured(model, schema, **options)
