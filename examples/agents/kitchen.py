"""Photos of a drawn kitchen, for the other examples."""

import base64
import io
from typing import Any

from safecode_guard.tiny.world import draw


def photo(*, towel_on_stove: bool, seed: int = 7) -> dict[str, Any]:
    """Return a photo of the stove as a content block: with a pot on it, or with a towel."""
    buffer = io.BytesIO()
    draw(seed, "stove", unsafe=towel_on_stove).image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image", "base64": data, "mime_type": "image/png"}
