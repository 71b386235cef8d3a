"""`ChatTransformers`: a local vision-language model as a LangChain chat model."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import ModelProfile
from langchain_core.language_models.base import LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, PrivateAttr

from safecode_guard.errors import UnsupportedGeneration
from safecode_guard.engines.transformers.protocol import CachedModel
from safecode_guard.models.protocol import Sampling
from safecode_guard.pipeline import TurnRequest
from safecode_guard.pipeline.admission import Turnstile
from safecode_guard.pipeline.plain import PlainPipeline
from safecode_guard.policy import ImagePolicy
from safecode_guard.runnables.messages import PROVIDER, AnswerShape
from safecode_guard.runnables.served import ServedChatModel
from safecode_guard.runnables.structured import Output, constraints, structured
from safecode_guard.turns.reading import read_turn

_UNSUPPORTED = {"num_beams": 1, "num_return_sequences": 1, "n": 1, "num_beam_groups": 1}


class ChatTransformers(ServedChatModel):
    """Any local vision-language model of transformers as a LangChain chat model.

    Weights load on first use. One instance serves threads, async code and batches.

    Example:
        >>> model = ChatTransformers.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct", device="auto")
        ... # doctest: +SKIP
        >>> model.invoke([HumanMessage([image_block, {"type": "text", "text": "What is this?"}])])
        ... # doctest: +SKIP
    """

    model_config = ConfigDict(
        arbitrary_types_allowed=True, populate_by_name=True, protected_namespaces=()
    )

    model_name: str = Field(alias="model")
    """Hub name or directory."""
    revision: str | None = None
    device: str | None = None
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``..."""
    dtype: str | None = None
    """``auto``, ``bfloat16``, ``float32``...; None: as the files have it."""
    device_map: str | dict[str, Any] | None = None
    quantization_config: Any = None
    """Passed to ``from_pretrained`` as it is."""
    local_files_only: bool = False
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    processor_kwargs: dict[str, Any] = Field(default_factory=dict)

    temperature: float | None = Field(default=None, ge=0)
    """0 decodes greedily; None leaves the model's own generation config in force."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    seed: int | None = None
    max_tokens: int = Field(default=512, gt=0)
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    streaming: bool = False
    images: ImagePolicy = ImagePolicy()
    """Limits for images; one that breaks them raises `ImageError`."""
    max_active: int = Field(default=4, gt=0)
    """Turns (or batches) that may hold caches on the model at a time."""
    max_waiting: int = Field(default=64, ge=0)
    """Turns that may wait before `Overloaded` is raised."""

    _vlm: CachedModel | None = PrivateAttr(default=None)
    _loading: Any = PrivateAttr(default_factory=threading.Lock)
    _turnstile: Turnstile | None = PrivateAttr(default=None)

    @classmethod
    def from_pretrained(cls, model: str | Path, **fields: Any) -> Self:
        """Return a chat model of a hub name or directory; nothing is loaded yet."""
        return cls(model=str(model), **fields)

    @classmethod
    def from_objects(cls, model: Any, processor: Any, **fields: Any) -> Self:
        """Return a chat model of a transformers model and its processor, loaded already."""
        from safecode_guard.engines.transformers.model import TransformersModel

        return cls.from_vlm(TransformersModel(model, processor), **fields)

    @classmethod
    def from_vlm(cls, vlm: CachedModel, **fields: Any) -> Self:
        """Return a chat model of an object that implements `CachedModel`."""
        chat = cls(model=fields.pop("model", vlm.id), **fields)
        chat._vlm = vlm
        return chat

    @classmethod
    def tiny(cls, **fields: Any) -> Self:
        """Return the embedded demo model (6.6 MB, offline); see its model card for its limits."""
        from safecode_guard.tiny.load import weights_path

        defaults = {"local_files_only": True, "max_tokens": 64, "temperature": 0.0}
        return cls.from_pretrained(weights_path("chat"), **(defaults | fields))

    @property
    def vlm(self) -> CachedModel:
        """The model behind; loads its weights on first use."""
        if self._vlm is None:
            with self._loading:
                if self._vlm is None:
                    self._vlm = self._load()
        return self._vlm

    def _load(self) -> CachedModel:
        from safecode_guard.engines.transformers.model import TransformersModel

        return TransformersModel.load(
            self.model_name,
            revision=self.revision,
            device=self.device,
            dtype=self.dtype,
            device_map=self.device_map,
            quantization_config=self.quantization_config,
            local_files_only=self.local_files_only,
            model_kwargs=self.model_kwargs,
            processor_kwargs=self.processor_kwargs,
        )

    @property
    def turnstile(self) -> Turnstile:
        """The queue before the model, shared by every guard around it."""
        with self._loading:
            if self._turnstile is None:
                self._turnstile = Turnstile(active=self.max_active, waiting=self.max_waiting)
            return self._turnstile

    # -- what LangChain asks ------------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "safecode-guard-transformers"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model_name", "revision", "dtype", "temperature", "top_p", "top_k")
        more = ("repetition_penalty", "seed", "max_tokens", "stop", "model_kwargs")
        return {name: getattr(self, name) for name in (*names, *more)} | {
            "images": self.images.model_dump(mode="json")
        }

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

    # -- serving ------------------------------------------------------------------------------

    def _pipeline(self) -> PlainPipeline:
        return PlainPipeline(self.vlm, self.turnstile)

    def _request(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | None,
        options: dict[str, Any],
    ) -> tuple[TurnRequest, AnswerShape]:
        turn = read_turn(messages, self.images, strict=True)
        output = Output.from_options(options)
        constraint, refusal = constraints(self.vlm, output)
        request = TurnRequest(
            turn,
            self.sampling(stop, options),
            output.tools,
            constraint=constraint,
            refusal=refusal,
        )
        return request, self.shape(output)

    def shape(self, output: Output) -> AnswerShape:
        """Return the form in which answers of this output are given."""
        names = tuple(tool["function"]["name"] for tool in output.tools)
        return AnswerShape(self.model_name, names, output.forced_tool)

    def sampling(self, stop: list[str] | None, options: Mapping[str, Any]) -> Sampling:
        """Return how tokens are drawn for one call: its options over this model's fields.

        Raises:
            UnsupportedGeneration: For beam search and several answers at once.
        """
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
        return structured(self, schema, include_raw=include_raw, **kwargs)
