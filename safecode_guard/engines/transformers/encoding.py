"""From conversations to encoded prompts: the chat template, then the processor."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, Final

from PIL import Image

from safecode_guard.engines.transformers.encoded import EncodedPrompts
from safecode_guard.engines.transformers.rendering import Renderer
from safecode_guard.engines.transformers.seen import SeenPictures, seeing
from safecode_guard.errors import ModelError, TemplateError
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Tool
from safecode_guard.turns.turn import ImagePart, Turn

_BAD_INPUT: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)


class Encoder:
    """Encodes conversations for one model; checks that every image is in its prompt.

    The tokenizer is set to pad on the left, with its end token if it has no padding token.
    """

    def __init__(self, processor: Any, family: Family, image_ids: frozenset[int]) -> None:
        self.processor, self.family, self.image_ids = processor, family, image_ids
        tokenizer = processor.tokenizer
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "left"  # not per call: a Q-Former's tokenizer pads on the right
        self._renderer = Renderer.of(processor, family)
        self._lock = Lock()  # a tokenizer's padding is state of its own

    def encode(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Tool] = (),
        *,
        seen: SeenPictures | None = None,
    ) -> EncodedPrompts:
        """Render and tokenise conversations, one row each, left-padded.

        Args:
            turns: The conversations.
            tools: Declared in each of them.
            seen: Where what the processor makes of pictures is looked up, and kept.

        Raises:
            TemplateError: If the chat template refuses the layout; names the fix.
            ModelError: If the processor refuses the images.
        """
        images = [_images(turn) for turn in turns]
        self._check_images(images)
        with self._lock:
            texts = [self._renderer.render(turn, tools) for turn in turns]
            with seeing(self.processor, seen):
                prompts = self._encoded(texts, images)
        self._check_shown(prompts, images)
        return prompts

    def _check_images(self, images: Sequence[Sequence[Image.Image]]) -> None:
        most = max((len(row) for row in images), default=0)
        limit, family = self.family.max_images, self.family.name
        if limit is not None and most > limit:
            raise TemplateError(
                f"Models of the family {family!r} take {limit} image, not {most}.",
                hint="Send one image per conversation, or use a multi-image model.",
            )
        if self.family.even_images and len({len(row) for row in images}) > 1:
            raise ModelError(
                f"Models of the family {family!r} take rows with equally many images only.",
                hint="Encode conversations with different numbers of images in separate calls.",
            )
        if not self.family.text_only and any(not row for row in images):
            raise TemplateError(
                f"Models of the family {family!r} need an image in every conversation.",
                hint="Attach an image, or answer text-only turns with another model.",
            )

    def _encoded(self, texts: list[str], images: Sequence[Sequence[Image.Image]]) -> EncodedPrompts:
        pictures: Any = None
        if any(images):
            flat = [image for row in images for image in row]
            pictures = [list(row) for row in images] if self.family.nested_images else flat
        bos = self.processor.tokenizer.bos_token
        begun = bool(bos) and all(text.startswith(bos) for text in texts)
        try:
            inputs = self.processor(
                text=texts,
                images=pictures,
                return_tensors="pt",
                padding=True,
                **({"add_special_tokens": False} if begun else {}),
            )
        except _BAD_INPUT as error:
            raise ModelError(
                f"The model's processor refuses the conversation: {error}",
                hint="Look at the number and the size of its images.",
            ) from error
        return EncodedPrompts(
            {key: value for key, value in inputs.items() if key != "labels"},
            int(self.processor.tokenizer.pad_token_id),
            self.image_ids,
        )

    def _check_shown(
        self, prompts: EncodedPrompts, images: Sequence[Sequence[Image.Image]]
    ) -> None:
        for i, (ids, row) in enumerate(zip(prompts.ids, images, strict=True)):
            if bool(row) != bool(prompts.image_ids.intersection(ids)):
                raise TemplateError(
                    f"Conversation {i} has {len(row)} images, and its prompt does not show them.",
                    hint="Check that the processor and the model belong together.",
                )


def _images(turn: Turn) -> list[Image.Image]:
    return [
        turn.images[part.index].pixels
        for message in turn.messages
        for part in message.parts
        if isinstance(part, ImagePart)
    ]
