"""Guard models that are no vision-language chat models: readers of words, and a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Self

import torch
from PIL import Image

from safecode_guard.engines.transformers.loading import target_of
from safecode_guard.errors import ModelError
from safecode_guard.judges.deadlines import has_time
from safecode_guard.turns.turn import Turn


class TextModel:
    """A causal language model that answers conversations in words, greedily, one at a time.

    Example:
        >>> TextModel.load("models/qwen3guard").write(turns, ...)       # doctest: +SKIP
    """

    def __init__(self, model: Any, tokenizer: Any, *, id: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.id = id
        self._lock = Lock()

    @classmethod
    def load(
        cls, name: str, *, device: str | None, dtype: str | None, local_files_only: bool
    ) -> Self:
        """Load a model and its tokenizer.

        Raises:
            ModelError: If they cannot be loaded, or the tokenizer has no chat template.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype or "auto", local_files_only=local_files_only
            )
        except (OSError, ValueError) as error:
            raise _not_loaded(name) from error
        if not tokenizer.chat_template:
            raise ModelError(
                f"The guard model {name!r} has no chat template.",
                hint="Use the published files: the template holds the policy.",
            )
        return cls(model.to(target_of(device)).eval(), tokenizer, id=name)

    def write(
        self,
        turns: Sequence[Turn],
        *,
        max_tokens: int,
        template: Mapping[str, Any],
        deadlines: Sequence[float | None],
    ) -> list[str]:
        """Return the answers to conversations without pictures; empty where time ran out.

        Raises:
            ModelError: If the template or the model fails.
        """
        with self._lock:
            return [
                self._answer(turn, max_tokens, template) if has_time(deadline) else ""
                for turn, deadline in zip(turns, deadlines, strict=True)
            ]

    @torch.inference_mode()
    def _answer(self, turn: Turn, max_tokens: int, template: Mapping[str, Any]) -> str:
        messages = [{"role": m.role, "content": m.text} for m in turn.messages]
        try:
            inputs = self.tokenizer.apply_chat_template(
                messages,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                **template,
            ).to(self.model.device)
            found = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        except Exception as error:  # a template of somebody else's may raise anything
            raise ModelError("The guard model failed on a conversation.") from error
        new = found[0, inputs["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(new, skip_special_tokens=True))


class PictureClassifier:
    """ShieldGemma 2: how likely a picture violates each policy of its processor."""

    def __init__(self, model: Any, processor: Any, *, id: str) -> None:
        self.model = model
        self.processor = processor
        self.id = id
        self._lock = Lock()

    @classmethod
    def load(
        cls, name: str, *, device: str | None, dtype: str | None, local_files_only: bool
    ) -> Self:
        """Load a model and its processor.

        Raises:
            ModelError: If they cannot be loaded.
        """
        from transformers import AutoProcessor, ShieldGemma2ForImageClassification

        try:
            processor = AutoProcessor.from_pretrained(name, local_files_only=local_files_only)
            model = ShieldGemma2ForImageClassification.from_pretrained(
                name, dtype=dtype or "auto", local_files_only=local_files_only
            )
        except (OSError, ValueError, ImportError) as error:
            raise _not_loaded(name) from error
        return cls(model.to(target_of(device)).eval(), processor, id=name)

    @torch.inference_mode()
    def violations(self, images: Sequence[Image.Image]) -> list[Mapping[str, float]]:
        """Return for each picture the probability of a violation, by the policy's name.

        Column 0 of the model's probabilities is "Yes", which means a violation.

        Raises:
            ModelError: If the model fails.
        """
        names = list(self.processor.policy_definitions)
        with self._lock:
            try:
                inputs = self.processor(images=list(images), return_tensors="pt")
                found = self.model(**inputs.to(self.model.device)).probabilities[:, 0]
            except (ValueError, RuntimeError, TypeError) as error:
                raise ModelError("The guard model failed on a picture.") from error
        rows = found.float().reshape(len(images), len(names)).tolist()
        return [dict(zip(names, row, strict=True)) for row in rows]


def _not_loaded(name: str) -> ModelError:
    return ModelError(
        f"The guard model {name!r} could not be loaded.",
        hint="Check judge.model, judge.device and judge.local_files_only.",
    )
