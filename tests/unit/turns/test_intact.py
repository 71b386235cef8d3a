"""A file is only called whole if it decodes; its pixels are made when somebody looks, and once."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage
from PIL import Image, ImageChops

from safecode_guard import SafeCoDeCheck
from safecode_guard.errors import ImageTooLarge, PolicyError, UnreadableImage
from safecode_guard.policy import ImagePolicy
from safecode_guard.testing import ScriptedJudge
from safecode_guard.turns import images, intact
from safecode_guard.turns.decoding import decode_file
from safecode_guard.turns.found import Media
from safecode_guard.turns.images import CheckedImage, Undecoded, load
from safecode_guard.turns.intact import size_of_intact
from safecode_guard.turns.pictures import PictureStore

POLICY = ImagePolicy()
LARGE = (625, 400)
END = (b"IEND", b"")


@pytest.fixture
def small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look through small pictures, too, so that every byte of a file can be tried."""
    monkeypatch.setattr(intact, "WORTH_IT", 1)


def pixels_of(size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(7)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


def png(size: tuple[int, int] = (9, 7), mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    pixels_of(size).convert(mode).save(file, "PNG", **options)
    return file.getvalue()


def written(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of any chunks, with the right checksum on each."""
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def head(width: int = 9, height: int = 7, form: tuple[int, ...] = (8, 2, 0, 0, 0)) -> Any:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, *form)


def rows(width: int = 9, height: int = 7, *, filters: bytes = b"") -> bytes:
    """Return rows of grey; the last of them begin with other filters, if any are given."""
    kinds = bytes(height - len(filters)) + filters
    return b"".join(bytes([kind]) + b"\x80" * (3 * width) for kind in kinds)


def data(body: bytes) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(body)


def checked(file: bytes, store: PictureStore | None = None) -> CheckedImage:
    (image,) = load(Media(file), POLICY, pictures=store)
    return image


def same(one: Image.Image, two: Image.Image) -> bool:
    return one.size == two.size and ImageChops.difference(one, two).getbbox() is None


# -- what is called whole -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(9, 7), (1, 300), (300, 1), (210, 211)])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_what_is_called_whole_decodes_as_it_is(
    size: tuple[int, int], level: int, small_counts: None
) -> None:
    file = png(size, compress_level=level)
    assert size_of_intact(file, POLICY) == size
    decoded = decode_file(file, POLICY)
    assert decoded.as_is
    assert same(decoded.frames[0], pixels_of(size))


def test_rows_may_come_in_several_chunks_and_behind_what_says_nothing(small_counts: None) -> None:
    stored = zlib.compress(rows())
    marks = [(b"sRGB", b"\0"), (b"pHYs", struct.pack(">IIB", 3000, 3000, 1))]
    parts = [(b"IDAT", stored[:5]), (b"IDAT", b""), (b"IDAT", stored[5:])]
    assert size_of_intact(written(head(), *marks, *parts, END), POLICY) == (9, 7)


def test_small_pictures_are_decoded_at_once() -> None:
    assert size_of_intact(png((499, 500)), POLICY) is None
    assert size_of_intact(png((500, 500)), POLICY) == (500, 500)


def test_every_changed_byte_is_noticed(small_counts: None) -> None:
    file = png()
    for place in range(len(file)):
        for other in (0, 255, file[place] ^ 1):
            changed = file[:place] + bytes([other]) + file[place + 1 :]
            assert changed == file or size_of_intact(changed, POLICY) is None


def test_no_beginning_and_no_longer_file_is_whole(small_counts: None) -> None:
    file = png()
    assert all(size_of_intact(file[:end], POLICY) is None for end in range(len(file)))
    assert size_of_intact(file + b"\0", POLICY) is None
    assert size_of_intact(file + file[8:], POLICY) is None


FULL = zlib.compress(rows())

BROKEN = {
    "a row too few": [head(), data(rows(height=6)), END],
    "a row too many": [head(), data(rows(height=8)), END],
    "half a row": [head(), data(rows()[:-5]), END],
    "an unknown filter": [head(), data(rows(filters=b"\5")), END],
    "an unknown filter further up": [head(), data(rows(filters=b"\xff\0\0")), END],
    "no rows": [head(), END],
    "no end of the stream": [head(), (b"IDAT", FULL[:-5]), END],
    "no checksum of the stream": [head(), (b"IDAT", FULL[:-4]), END],
    "another checksum of the stream": [head(), (b"IDAT", FULL[:-4] + b"1234"), END],
    "bytes behind the stream": [head(), (b"IDAT", FULL + b"1234"), END],
    "many bytes behind the stream": [head(), (b"IDAT", FULL + bytes(1 << 15)), END],
    "a chunk behind the stream": [head(), (b"IDAT", FULL), (b"IDAT", bytes(9)), END],
    "no end": [head(), data(rows())],
    "an end that says something": [head(), data(rows()), (b"IEND", b"x")],
    "two headers": [head(), head(), data(rows()), END],
    "no header": [data(rows()), END],
    "a chunk between rows": [head(), (b"IDAT", FULL[:5]), (b"tIME", bytes(7)), END],
    "no width": [head(width=0), data(rows(width=0)), END],
    "too short a mark": [head(), (b"pHYs", b"1"), data(rows()), END],
}

UNPLAIN = {
    "transparency": [head(), (b"tRNS", bytes(6)), data(rows()), END],
    "a colour profile": [head(), (b"iCCP", b"x\0\0" + zlib.compress(b"x")), data(rows()), END],
    "a gamma": [head(), (b"gAMA", struct.pack(">I", 100_000)), data(rows()), END],
    "an animation": [head(), (b"acTL", struct.pack(">II", 1, 0)), data(rows()), END],
    "a text": [head(), (b"tEXt", b"Raw profile type exif\0x"), data(rows()), END],
    "an orientation behind the rows": [head(), data(rows()), (b"eXIf", bytes(8)), END],
    "grey": [head(form=(8, 0, 0, 0, 0)), data(rows(width=3)), END],
    "wide samples": [head(form=(16, 2, 0, 0, 0)), data(rows(width=18)), END],
    "alpha": [head(width=3, form=(8, 6, 0, 0, 0)), data(rows(width=4)), END],
    "interlaced": [head(form=(8, 2, 0, 0, 1)), data(rows()), END],
}


@pytest.mark.parametrize("chunks", [*BROKEN.values(), *UNPLAIN.values()], ids=[*BROKEN, *UNPLAIN])
def test_what_is_broken_or_not_plain_is_left_to_the_decoder(
    chunks: list[Any], small_counts: None
) -> None:
    assert size_of_intact(written(head(), data(rows()), END), POLICY) == (9, 7)
    assert size_of_intact(written(*chunks), POLICY) is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_is_called_whole_that_does_not_decode(draw: st.DataObject) -> None:
    body = bytearray(rows())
    for _ in range(draw.draw(st.integers(0, 3))):
        body[draw.draw(st.integers(0, len(body) - 1))] = draw.draw(st.integers(0, 255))
    width, height = draw.draw(st.sampled_from([(9, 7), (9, 6), (7, 9), (8, 7)]))
    end = draw.draw(st.sampled_from([None, -1, -28]))
    file = written(head(width, height), data(bytes(body[:end])), END)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intact, "WORTH_IT", 1)
        size = size_of_intact(file, POLICY)
    if size is not None:
        decoded = decode_file(file, POLICY)
        assert decoded.as_is
        assert decoded.frames[0].size == size


def test_limits_and_time_hold(small_counts: None) -> None:
    file = png()
    assert size_of_intact(file, ImagePolicy(max_pixels=62)) is None
    assert size_of_intact(file, ImagePolicy(max_pixels=63)) == (9, 7)
    assert size_of_intact(file, ImagePolicy(formats=("JPEG",))) is None
    assert size_of_intact(file, POLICY, deadline=time.monotonic() - 1) is None
    assert size_of_intact(file, ImagePolicy(decode_timeout_s=1e-9)) is None
    with pytest.raises(PolicyError):
        size_of_intact(file, ImagePolicy(formats=("PNG", "EPS")))


def test_what_inflates_without_end_is_not_inflated(small_counts: None) -> None:
    bomb = written(head(), data(bytes(300_000_000)), END)
    began = time.process_time()
    assert size_of_intact(bomb, POLICY) is None
    assert time.process_time() - began < 0.1


# -- what is made of it ---------------------------------------------------------------------------


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode_file", None)


def test_a_large_picture_is_known_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    file = png(LARGE)
    no_decoding(monkeypatch)
    image = checked(file)
    assert image.size == LARGE
    assert (image.subject.width, image.subject.height) == LARGE
    assert image.file == (file, "image/png")
    assert image.view == ""
    monkeypatch.undo()
    assert same(image.pixels, pixels_of(LARGE))
    assert image.pixels.info == {}


def test_pixels_are_made_once_for_all_who_look(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    monkeypatch.setattr(
        images, "decode_file", lambda file, policy: made.append(file) or decode_file(file, policy)
    )
    store, file = PictureStore(50_000_000), png(LARGE)
    found = [checked(file, store) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda image: image.pixels, found))
    assert len(made) == 1
    assert all(each is seen[0] for each in seen)


def test_a_store_counts_pixels_that_may_yet_be_made() -> None:
    store, file = PictureStore(50_000_000), png(LARGE)
    checked(file, store)
    before = store.statistics.bytes
    assert before >= 4 * LARGE[0] * LARGE[1]
    assert checked(file, store).pixels.size == LARGE
    assert store.statistics.bytes == before


@pytest.mark.parametrize("place", [100, -100, -30, -1])
def test_a_large_broken_picture_is_found_when_it_is_read(place: int) -> None:
    file = png(LARGE)
    for broken in (file[:place], file[:place] + bytes(8) + file[place:]):
        try:
            (image,) = load(Media(broken), POLICY)
        except UnreadableImage:
            continue
        assert not isinstance(image.picture, Undecoded)  # bytes that the decoder passes over


def test_no_broken_picture_comes_before_a_judge_that_does_not_look() -> None:
    file = png(LARGE)
    judge = ScriptedJudge(0.0)
    block = {"type": "image", "base64": base64.b64encode(file[:-200]).decode()}
    verdict = SafeCoDeCheck(judge=judge).check(
        [HumanMessage([{**block, "mime_type": "image/png"}, {"type": "text", "text": "Go on."}])]
    )
    assert verdict.standing == "block"
    assert judge.requests == []


def test_a_picture_that_cannot_be_made_when_it_is_looked_at_is_a_failed_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(file: bytes, policy: ImagePolicy) -> None:
        raise ImageTooLarge("The image takes too long to decode.")

    def looks(request: Any) -> float:
        return float(request.scene.images[0].pixels.width < 0)

    monkeypatch.setattr(images, "decode_file", late)
    block = {"type": "image", "base64": base64.b64encode(png(LARGE)).decode()}
    verdict = SafeCoDeCheck(judge=ScriptedJudge(looks)).check(
        [HumanMessage([{**block, "mime_type": "image/png"}, {"type": "text", "text": "Go on."}])]
    )
    assert verdict.label is None
    assert verdict.standing == "review"
