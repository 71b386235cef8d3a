"""An image is told by its first bytes, and nothing else is taken for one."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from safecode_guard.turns.signatures import HEAD, is_encoded_image, is_image


def encode(format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(file, format, **options)
    return file.getvalue()


FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_told_by_its_bytes_and_by_its_base64(format: str) -> None:
    try:
        data = encode(format)
    except (OSError, KeyError):
        pytest.skip(f"Pillow writes no {format} here")
    assert is_image(data[:HEAD])
    assert is_encoded_image(base64.b64encode(data).decode())
    assert is_encoded_image(base64.urlsafe_b64encode(data).decode())
    assert is_encoded_image(base64.encodebytes(data).decode())


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7 and more than a few bytes of it",
        b"RIFF\x24\x08\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x02\x00",
        b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41",
        b"BM is how this sentence happens to begin.",
        b"PK\x03\x04 a zip file with more bytes than that",
        b"II is a Roman number, and MM another one of them.",
        b"",
    ],
)
def test_other_files_are_no_images(data: bytes) -> None:
    assert not is_image(data[:HEAD])
    assert not is_encoded_image(base64.b64encode(data).decode())


@given(st.text(max_size=80))
def test_text_is_no_image(text: str) -> None:
    assert not is_encoded_image(text)
    assert not is_encoded_image(base64.b64encode(json.dumps([text]).encode()).decode())


def test_what_is_too_short_to_be_a_picture_is_none() -> None:
    assert not is_encoded_image("/9j/4AAQ")
    assert not is_encoded_image("iVBORw0KGgo is how every PNG begins.")
