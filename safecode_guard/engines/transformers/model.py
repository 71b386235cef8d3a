"""Vision-language models of the transformers library behind the `Engine` protocol.

This folder alone relies on how transformers works inside; a contract suite compares it with
plain ``generate``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import torch
from PIL import Image

from safecode_guard.engines.transformers.branch import TransformersBranch
from safecode_guard.engines.transformers.encoded import EncodedPrompts
from safecode_guard.engines.transformers.encoding import Encoder
from safecode_guard.engines.transformers.engine import CachedEngine
from safecode_guard.engines.transformers.identity import fingerprint
from safecode_guard.engines.transformers.kept import KeptPrompts
from safecode_guard.engines.transformers.loading import load_parts, require_decoder
from safecode_guard.engines.transformers.protocol import Branch, Prompts
from safecode_guard.engines.transformers.runner import Runner
from safecode_guard.engines.transformers.seen import SeenPictures
from safecode_guard.engines.transformers.sizes import working_size
from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from safecode_guard.models.families import Family, family_of
from safecode_guard.models.protocol import Sampling, Tool
from safecode_guard.turns.turn import Turn


class TransformersModel(CachedEngine):
    """A local vision-language model with access to its logits.

    One object serves threads: a lock is held for each forward pass and for no longer, so that
    several answers can be decoded in turns.

    Example:
        >>> vlm = TransformersModel.load("Qwen/Qwen2.5-VL-3B-Instruct")   # doctest: +SKIP
        >>> vlm.generate([turn], Sampling(max_tokens=32))                 # doctest: +SKIP
        ['A cliff path in the rain.']
    """

    def __init__(
        self, model: Any, processor: Any, *, id: str | None = None, family: Family | None = None
    ) -> None:
        """Wrap a loaded model and its processor.

        Args:
            model: An image-text-to-text model of transformers; put into evaluation mode.
            processor: Its processor. Its tokenizer is set to pad on the left, with the end token
                if it has no padding token.
            id: Name of the model; None takes the one it was loaded by.
            family: Its record; None finds it by the model's config.

        Raises:
            UnsupportedFamily: If the model is an encoder-decoder.
        """
        require_decoder(model.config)
        self.model, self.processor = model.eval(), processor
        self.family = _refined(family or family_of(model.config), model.config)
        self._encoder = Encoder(processor, self.family, _image_ids(model.config, processor))
        self.vocabulary = TokenizerVocabulary(
            processor.tokenizer, size=_logits_width(model), eos_ids=_eos_ids(model)
        )
        name = id or Path(str(getattr(model.config, "_name_or_path", ""))).name or self.family.name
        self.id = f"{name}@{fingerprint(model, self.vocabulary.id)}"
        self._runner = Runner(model, self.family.module_state)
        self.kept = KeptPrompts()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: Any = None,
        quantization_config: Any = None,
        local_files_only: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        revision: str | None = None,
    ) -> Self:
        """Load a model and its processor from a directory or from the hub.

        Args:
            name: Directory or hub name. A ``safecode.json`` in it overrides its family's record.
            device: ``auto`` takes a GPU if there is one; None leaves the model on the CPU. A
                ``device_map`` takes precedence.
            dtype: Such as ``bfloat16``; None keeps that of the files.
            device_map: As for ``from_pretrained``; needs accelerate.
            quantization_config: As for ``from_pretrained``.
            local_files_only: Never look at the hub.
            model_kwargs: More options of the model's ``from_pretrained``.
            processor_kwargs: More options of the processor's.
            revision: Commit, tag or branch on the hub.

        Raises:
            UnsupportedFamily: If the architecture cannot be loaded here; says what is missing.
            ModelError: If a package is missing that the options need.
        """
        parts = load_parts(
            name,
            device=device,
            options={
                "dtype": dtype,
                "device_map": device_map,
                "quantization_config": quantization_config,
                **(model_kwargs or {}),
            },
            processor_options=processor_kwargs or {},
            local_files_only=local_files_only,
            revision=revision,
        )
        return cls(parts.model, parts.processor, id=parts.label, family=parts.family)

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        tools: Sequence[Tool] = (),
        seen: SeenPictures | None = None,
    ) -> EncodedPrompts:
        """Render and tokenise conversations, one row each, left-padded.

        Pictures that were ``seen`` do not go through the processor again.

        Raises:
            TemplateError: If the chat template refuses the layout; names the fix.
            ModelError: If the processor refuses the images.
        """
        return self._encoder.encode(turns, tools, seen=seen)

    def count_tokens(self, prompts: EncodedPrompts) -> list[int]:
        """Return the number of prompt tokens of each row, those of its images included."""
        return prompts.counts

    def prefill(
        self, prompts: Prompts, sampling: Sampling, *, hidden_layer: int | None = None
    ) -> TransformersBranch:
        """Run the prompts (left-padded) once and return a branch with their next-token logits."""
        encoded = cast(EncodedPrompts, prompts)
        return TransformersBranch(
            self._runner,
            self._generator(encoded),
            self._inputs(encoded),
            options=self._options(sampling),
            hidden_layer=hidden_layer,
        )

    def resume(self, branch: Branch, sampling: Sampling) -> TransformersBranch:
        """Return a fork of a branch that goes on under other sampling parameters."""
        return cast(TransformersBranch, branch).fork().under(self._options(sampling))

    def generate(self, turns: Sequence[Turn], sampling: Sampling) -> list[str]:
        """Return plain generated texts by the model's own ``generate``.

        A seed applies to this call alone: the global random state is as before afterwards.
        """
        prompts = self.encode(turns)
        inputs, options = self._inputs(prompts), self._options(sampling)
        if sampling.stop:
            options |= {
                "stop_strings": list(sampling.stop),
                "tokenizer": self.processor.tokenizer,
            }
        length = inputs["input_ids"].shape[1]
        devices = range(torch.cuda.device_count())  # a seed applies to all of them
        with self._runner.running([]), torch.random.fork_rng(devices):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            rows = self._generator(prompts).generate(**inputs, **options)
        texts = [self.vocabulary.decode(row[length:].tolist()) for row in rows]
        return [_before(text, sampling.stop) for text in texts]

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return (width, height) to which the model's preprocessing resizes an image."""
        return working_size(self.processor, self.family, image)

    def samples(self, sampling: Sampling) -> bool:
        """Return whether tokens are drawn at random under these parameters.

        A temperature of 0 never draws, a higher one does unless ``do_sample`` says otherwise.
        """
        if sampling.temperature == 0:
            return False
        if sampling.do_sample is not None:
            return sampling.do_sample
        return sampling.temperature is not None or bool(self.model.generation_config.do_sample)

    @property
    def _device(self) -> torch.device:
        device = cast(torch.device, self.model.device)
        if device.type != "meta":
            return device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")  # offloaded weights

    def _generator(self, prompts: EncodedPrompts) -> Any:
        inner = self.family.text_module
        if inner is None or prompts.has_images:
            return self.model
        return getattr(self.model, inner)

    def _inputs(self, prompts: EncodedPrompts) -> dict[str, Any]:
        inputs = {key: self._placed(value) for key, value in prompts.inputs.items()}
        if self._generator(prompts) is self.model:
            return inputs
        return {key: inputs[key] for key in ("input_ids", "attention_mask")}

    def _placed(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        dtype = self.model.dtype if value.is_floating_point() else None
        return value.to(device=self._device, dtype=dtype)

    def _options(self, sampling: Sampling) -> dict[str, Any]:
        """Return the arguments of ``generate``: one beam, one answer, a cache that grows."""
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "do_sample": self.samples(sampling),
            "num_beams": 1,
            "num_return_sequences": 1,
            "use_cache": True,
            "cache_implementation": "dynamic",
            "return_dict_in_generate": False,
        }
        penalty = {"repetition_penalty": sampling.repetition_penalty}
        drawing = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        given = penalty | (drawing if options["do_sample"] else {})
        return options | {key: value for key, value in given.items() if value is not None}


def _image_ids(config: Any, processor: Any) -> frozenset[int]:
    named = (getattr(config, name, None) for name in ("image_token_id", "image_token_index"))
    ids = {i for i in named if isinstance(i, int)}
    return frozenset(ids or {getattr(processor, "image_token_id", -1)})


def _logits_width(model: Any) -> int:
    width = getattr(model.get_output_embeddings(), "out_features", None)
    return int(width or model.config.get_text_config().vocab_size)


def _eos_ids(model: Any) -> list[int]:
    ids = model.generation_config.eos_token_id
    if ids is None and (inner := getattr(model, "language_model", None)) is not None:
        ids = getattr(getattr(inner, "generation_config", None), "eos_token_id", None)
    return [] if ids is None else [int(i) for i in (ids if isinstance(ids, list) else [ids])]


def _before(text: str, stops: Sequence[str]) -> str:
    """Cut a text before the first stop string in it."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def _refined(family: Family, config: Any) -> Family:
    """Return the record with what this model's cache cannot do."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=config.get_text_config())
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        family = replace(family, crops=False)
    if family.ragged_extend and any([*cache.is_sliding, *cache.is_linear]):
        return replace(family, ragged_extend=False)
    return family
