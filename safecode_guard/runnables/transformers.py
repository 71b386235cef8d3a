"""`ChatTransformers`: a local vision-language model as a LangChain chat model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from pydantic import Field

from safecode_guard.models.protocol import Engine
from safecode_guard.runnables.vision_model import ChatVisionModel

_SECRET: Final = re.compile(
    r"(?:^|_)(?:tokens?|secrets?|password|credentials?|auth\w*|(?:api|access|private)_?key"
    r"|headers|cookies|proxies)$",
    re.IGNORECASE,
)


class ChatTransformers(ChatVisionModel):
    """Any local vision-language model of transformers as a LangChain chat model.

    Weights load on first use. One instance serves threads, async code and batches.

    Example:
        >>> model = ChatTransformers.from_pretrained("Qwen/Qwen2.5-VL-7B-Instruct", device="auto")
        ... # doctest: +SKIP
        >>> model.invoke([HumanMessage([image_block, {"type": "text", "text": "What is this?"}])])
        ... # doctest: +SKIP
    """

    revision: str | None = None
    device: str | None = None
    """``auto``, ``cpu``, ``cuda``, ``cuda:1``..."""
    dtype: str | None = None
    """``auto``, ``bfloat16``, ``float32``...; None: as the files have it."""
    device_map: str | dict[str, Any] | None = None
    quantization_config: Any = None
    """Passed to ``from_pretrained`` as it is."""
    local_files_only: bool = False
    model_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """More options of the model's ``from_pretrained``; may hold a token, so it is never shown."""
    processor_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)

    @classmethod
    def from_pretrained(cls, model: str | Path, **fields: Any) -> Self:
        """Return a chat model of a hub name or directory; nothing is loaded yet."""
        return cls(model=str(model), **fields)

    @classmethod
    def named(cls, model: str | Path) -> Self:
        """Return a chat model by its name: ``tiny``, a hub name or a directory."""
        return cls.tiny() if model == "tiny" else cls.from_pretrained(model)

    @classmethod
    def from_objects(cls, model: Any, processor: Any, **fields: Any) -> Self:
        """Return a chat model of a transformers model and its processor, loaded already."""
        from safecode_guard.engines.transformers.model import TransformersModel

        return cls.from_engine(TransformersModel(model, processor), **fields)

    @classmethod
    def from_engine(cls, engine: Engine, **fields: Any) -> Self:
        """Return a chat model of an object that implements `Engine`."""
        chat = cls(model=fields.pop("model", engine.id), **fields)
        chat._engine = engine
        return chat

    @classmethod
    def tiny(cls, **fields: Any) -> Self:
        """Return the embedded demo model (6.6 MB, offline); see its model card for its limits."""
        from safecode_guard.tiny.load import weights_path

        defaults = {"local_files_only": True, "max_tokens": 64, "temperature": 0.0}
        return cls.from_pretrained(weights_path("chat"), **(defaults | fields))

    def _open(self) -> Engine:
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
    def _llm_type(self) -> str:
        return "safecode-guard-transformers"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("model_name", "revision", "dtype", "temperature", "top_p", "top_k")
        more = ("repetition_penalty", "seed", "max_tokens", "stop")
        return {name: getattr(self, name) for name in (*names, *more)} | {
            "model_kwargs": _masked(self.model_kwargs),
            "processor_kwargs": _masked(self.processor_kwargs),
            "quantization_config": repr(self.quantization_config),
            "images": self.images.model_dump(mode="json"),
        }


def _masked(options: Any) -> Any:
    """Return options without what is secret; credentials do not change what a model answers."""
    if isinstance(options, list | tuple):
        return [_masked(item) for item in options]
    if not isinstance(options, Mapping):
        return options
    return {
        name: "**********" if _SECRET.search(str(name)) else _masked(value)
        for name, value in options.items()
    }
