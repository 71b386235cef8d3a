"""Pictures are decoded once, found again cheaply, and never past a policy or a budget."""

from __future__ import annotations

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import HumanMessage, ToolMessage
from PIL import Image

from safecode_guard.errors import ImageTooLarge, UnreadableImage, UnsupportedMedia
from safecode_guard.policy import ImagePolicy
from safecode_guard.turns import images
from safecode_guard.turns.found import Encoded, File, Link, Media
from safecode_guard.turns.images import CheckedImage, load
from safecode_guard.turns.pictures import Limits, PictureStore, Statistics
from safecode_guard.turns.reading import read_turn

POLICY = ImagePolicy()
BUDGET = 50_000_000


def png(size: tuple[int, int] = (24, 16), seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (seed % 256, seed // 256, 7)).save(file, "PNG")
    return file.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fresh(text: str) -> str:
    """Return an equal text that is another object."""
    return "".join([text[:1], text[1:]])


def read(source: File, store: PictureStore, policy: ImagePolicy = POLICY) -> list[CheckedImage]:
    return load(Media(source), policy, pictures=store)


@pytest.fixture
def store() -> PictureStore:
    return PictureStore(BUDGET)


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decode_file", None)


# -- hits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sources",
    [
        lambda d: (d, d),
        lambda d: (d, bytes(bytearray(d))),
        lambda d: (Encoded(text_of(d)), Encoded(fresh(text_of(d)))),
        lambda d: (Encoded(text_of(d)), Link(f"data:image/png;base64,{text_of(d)}")),
        lambda d: (Encoded(text_of(d)), d),
        lambda d: (Encoded(text_of(d)), Encoded(text_of(d) + "\n")),
    ],
)
def test_the_same_bytes_are_decoded_once(
    sources: Any, store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sources(png())
    (one,) = read(first, store)
    no_decoding(monkeypatch)
    (two,) = read(second, store)
    assert two.pixels is one.pixels
    assert (two.sha256, two.mime, two.data) == (one.sha256, one.mime, one.data)
    assert (store.statistics.hits, store.statistics.misses) == (1, 1)


def test_the_same_source_is_not_even_decoded_from_base64(
    store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(png())
    read(Encoded(text), store)
    monkeypatch.setattr(images, "read_bytes", None)
    assert read(Encoded(text), store)
    assert read(Encoded(fresh(text)), store)


def test_places_belong_to_the_reading(store: PictureStore) -> None:
    media = Media(png())
    load(media, POLICY, message_index=1, block_index=2, pictures=store)
    (image,) = load(media, POLICY, message_index=5, block_index=0, pictures=store)
    assert (image.message_index, image.block_index) == (5, 0)


def test_frames_of_an_animation_are_kept_together(store: PictureStore) -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (4, 4), 60 * i) for i in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    once, again = (read(file.getvalue(), store) for _ in range(2))
    assert [image.pixels for image in again] == [image.pixels for image in once]
    assert [image.frame for image in again] == [0, 1, 2]


def test_a_png_made_of_the_pixels_is_made_once(store: PictureStore) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (4, 4)).save(file, "PNG")
    (one,), (two,) = (read(file.getvalue(), store) for _ in range(2))
    assert one.file[0] is two.file[0]


def test_what_is_fetched_is_fetched_again_and_decoded_once(
    store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = ImagePolicy(allow_urls=True, url_hosts=("e.org",))
    served = [png(seed=1), png(seed=1), png(seed=2)]

    def once() -> CheckedImage:
        link = Media(Link("https://e.org/a.png"))
        (image,) = load(link, policy, pictures=store, fetch=lambda url, given: served.pop(0))
        return image

    one, two, three = once(), once(), once()
    assert one.pixels is two.pixels
    assert three.sha256 != one.sha256


def test_image_objects_are_hashed_afresh(store: PictureStore) -> None:
    image = Image.new("RGB", (4, 4), "red")
    (before,) = load(Media(image), POLICY, pictures=store)
    image.paste("blue", (0, 0, 4, 4))
    (after,) = load(Media(image), POLICY, pictures=store)
    assert before.sha256 != after.sha256
    assert after.pixels.getpixel((0, 0)) == (0, 0, 255)
    assert store.statistics == Statistics(0, 0, 0)


def test_text_that_images_stand_in_is_split_once(
    store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(data, "PNG")
    message = ToolMessage(f'{{"shot": "{text_of(data.getvalue())}"}}', tool_call_id="1")
    once = read_turn([message], pictures=store)
    monkeypatch.setattr("safecode_guard.turns.embedded._candidates", None)
    no_decoding(monkeypatch)
    again = read_turn([message], pictures=store)
    assert again.messages[0].parts == once.messages[0].parts
    assert again.images[0].pixels is once.images[0].pixels


# -- the policy holds on a hit, too ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"max_bytes": 40}, ImageTooLarge),
        ({"max_pixels": 24 * 16 - 1}, ImageTooLarge),
        ({"formats": ("JPEG",)}, UnreadableImage),
    ],
)
def test_a_stricter_policy_refuses_what_is_kept(
    changed: dict[str, Any], error: type[Exception], store: PictureStore
) -> None:
    source = Encoded(text_of(png()))
    read(source, store)
    with pytest.raises(error):
        read(source, store, ImagePolicy(**changed))


def test_rules_for_animations_hold_on_a_hit(store: PictureStore) -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (4, 4), 60 * i) for i in range(4)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert len(read(file.getvalue(), store)) == 4
    assert len(read(file.getvalue(), store, ImagePolicy(max_frames=2))) == 2
    with pytest.raises(UnsupportedMedia):
        read(file.getvalue(), store, ImagePolicy(animated="reject"))


def test_pillows_own_limit_holds_on_a_hit(
    store: PictureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(png(), store)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageTooLarge):
        read(png(), store)


def test_what_cannot_be_read_is_not_kept(store: PictureStore) -> None:
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            read(b"no image", store)
    assert store.statistics == Statistics(hits=0, misses=2, bytes=0)


# -- the budget -----------------------------------------------------------------------------------


def test_pixels_bytes_and_sources_are_counted() -> None:
    store = PictureStore(BUDGET)
    data = png((100, 50))
    read(Encoded(text_of(data)), store)
    assert store.statistics.bytes == 100 * 50 * 4 + len(data) + len(text_of(data))
    read(Encoded(text_of(data)), store)
    assert store.statistics.bytes == 100 * 50 * 4 + len(data) + len(text_of(data))


def test_the_longest_unused_goes_first() -> None:
    size = 100 * 50 * 4
    store = PictureStore(3 * size)
    one, two, three = (png((100, 50), seed) for seed in range(3))
    read(one, store)
    read(two, store)
    read(one, store)
    read(three, store)
    limits = Limits.of(POLICY)
    assert store.by_source(two, limits) is None
    assert store.by_source(one, limits)
    assert store.by_source(three, limits)


@pytest.mark.parametrize("budget", [0, 100])
def test_a_picture_over_the_budget_is_read_and_not_kept(budget: int) -> None:
    store = PictureStore(budget)
    for _ in range(2):
        assert read(Encoded(text_of(png())), store)
    assert store.statistics == Statistics(hits=0, misses=2, bytes=0)


def test_a_large_picture_does_not_empty_the_store() -> None:
    store = PictureStore(20_000)
    read(png(seed=1), store)
    read(png((200, 200)), store)
    assert store.by_source(png(seed=1), Limits.of(POLICY))


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_budget_is_never_exceeded(reads: list[tuple[int, int]]) -> None:
    store = PictureStore(9_000)
    for seed, form in reads:
        data = png(seed=seed)
        source = (data, Encoded(text_of(data)), Link(f"data:;base64,{text_of(data)}"))[form]
        (image,) = read(source, store)
        assert image.pixels.getpixel((0, 0)) == (seed, 0, 7)
        assert store.statistics.bytes <= 9_000


def test_threads_share_a_store() -> None:
    store = PictureStore(12_000)
    files = [png(seed=seed) for seed in range(12)]

    def once(number: int) -> bool:
        (image,) = read(files[number % 12], store)
        return image.pixels.getpixel((0, 0)) == (number % 12, 0, 7)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(once, range(600)))
    statistics = store.statistics
    assert statistics.hits + statistics.misses == 600
    assert statistics.bytes <= 12_000


# -- speed ----------------------------------------------------------------------------------------


def test_a_kept_screenshot_is_read_in_a_third_of_a_millisecond() -> None:
    file = io.BytesIO()
    Image.effect_noise((1920, 1080), 30).convert("RGB").save(file, "PNG", compress_level=1)
    block = {"type": "image", "base64": text_of(file.getvalue()), "mime_type": "image/png"}
    message = HumanMessage([block, {"type": "text", "text": "What is this?"}])
    store = PictureStore(BUDGET)
    read_turn([message], pictures=store)

    def once() -> float:
        start = time.perf_counter()
        read_turn([message], pictures=store)
        return time.perf_counter() - start

    assert min(once() for _ in range(50)) < 3e-4
