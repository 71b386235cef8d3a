"""Images of a conversation: found in every block form, checked, decoded within limits."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from safecode_guard.verdict import SubjectImage


@dataclass(frozen=True, eq=False)
class CheckedImage:
    """An image that passed the policy's checks, decoded to RGB and turned upright."""

    pixels: Image.Image
    sha256: str
    """Of the encoded bytes as they came."""
    mime: str
    """From the bytes, never from the block."""
    message_index: int
    block_index: int

    @property
    def subject(self) -> SubjectImage:
        """The image by reference, without pixels."""
        return SubjectImage(
            sha256=self.sha256,
            message_index=self.message_index,
            mime=self.mime,
            width=self.pixels.width,
            height=self.pixels.height,
        )
