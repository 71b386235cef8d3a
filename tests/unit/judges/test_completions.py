from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from safecode_guard.errors import JudgeError
from safecode_guard.judges.completions import body, prompt_in, read
from safecode_guard.judges.content import judge_content
from safecode_guard.judges.labels import written_probability
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import JudgeRequest
from tests.unit.judges.endpoints import config, scores, text, top

Make = Callable[..., JudgeRequest]


def data(completion: Any) -> bytes:
    return json.dumps(completion).encode()


def test_pictures_go_inline_before_the_question(request_for: Make) -> None:
    request = request_for("How do I run faster here?")
    asked = body("logprobs", judge_content(request, GENERAL), config())
    (message,) = asked["messages"]
    picture, question = message["content"]
    assert message["role"] == "user"
    head, _, encoded = picture["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert list(shown.get_flattened_data()) == list(
        request.scene.images[0].pixels.get_flattened_data()
    )
    assert question == {"type": "text", "text": GENERAL.text(request)}


def test_each_form_asks_for_what_it_reads(request_for: Make) -> None:
    content = judge_content(request_for(), GENERAL)
    scored, shaped, word = (body(form, content, config()) for form in ("logprobs", "json", "word"))
    assert (scored["logprobs"], scored["top_logprobs"], scored["max_tokens"]) == (True, 20, 1)
    assert shaped["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert not {"logprobs", "response_format"} & word.keys()
    assert {asked["temperature"] for asked in (scored, shaped, word)} == {0}


def test_sentences_are_part_of_the_schema_where_they_are_wanted() -> None:
    wanted = config(reply="json", caption=True)
    schema = body("json", [], wanted)["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["label", "p_unsafe", "categories", "caption"]
    assert '"caption"' in prompt_in("json", GENERAL, wanted).reply


@pytest.mark.parametrize(("p", "mass"), [(0.9, 1.0), (0.2, 0.8), (0.5, 0.3)])
def test_a_probability_is_read_of_the_labels_tokens(p: float, mass: float) -> None:
    found = read("logprobs", data(scores(p, mass=mass)), config())
    assert found.p_unsafe == pytest.approx(p)
    assert found.label_mass == pytest.approx(mass)
    assert (found.label, found.status) == (None, "logits")


def test_too_little_mass_is_undecided() -> None:
    found = read("logprobs", data(scores(0.9, mass=0.05)), config())
    assert (found.label, found.status) == ("undecided", "low_mass")


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ([(" Unsafe", 0.6), ("safe", 0.2), ("▁SAFE", 0.2)], (0.6, 1.0)),
        ([("uns", 0.5), ("Ġsaf", 0.5)], (0.5, 1.0)),
        ([("unsafe", 0.9), ("I", 0.1)], (1.0, 0.9)),  # nothing is counted towards safe unseen
        ([("safe", 0.9), ("I", 0.06)], (0.04 / 0.94, 0.9)),  # but what may be, towards unsafe
        ([("safe", 0.9), ("I", 0.02)], (0.02 / 0.92, 0.9)),  # no more than the last listed
        ([("safe", 1.0)], (0.0, 1.0)),
        ([("s", 0.5), ("u", 0.4), ("sad", 0.1)], None),
        ([("safely", 0.5), ("unsafety", 0.5)], None),
        ([("banana", 1.0)], None),
    ],
)
def test_tokens_count_by_how_they_read(
    top: list[tuple[str, float]], expected: tuple[float, float] | None
) -> None:
    found = written_probability([(token, math.log(p)) for token, p in top])
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("scored", [[("safe", 0.5)], [("safe", -0.1), ("unsafe", -0.1)]])
def test_what_is_no_distribution_is_a_failed_check(scored: list[tuple[str, float]]) -> None:
    with pytest.raises(JudgeError, match="labels' scores"):
        read("logprobs", data(top(*scored)), config())


@pytest.mark.parametrize(
    "completion",
    [
        text("unsafe"),
        text("unsafe") | {"choices": [{"message": {"content": "x"}, "logprobs": {"content": []}}]},
        top(("banana", -0.1)),
    ],
)
def test_no_probabilities_of_labels_are_nothing_read_and_why(completion: dict[str, Any]) -> None:
    found = read("logprobs", data(completion), config())
    assert found.status == "malformed"
    assert found.why is not None


@pytest.mark.parametrize(
    ("form", "content", "label"),
    [
        ("json", '{"label": "unsafe", "p_unsafe": 0.9, "categories": []}', "unsafe"),
        ("json", "unsafe", None),
        ("json", '{"label": "safe", "p_unsafe": 0.9, "categories": []}', None),
        ("word", "Unsafe.", "unsafe"),
        ("word", "safe", "safe"),
        ("word", "safe, but someone may fall", None),
        ("word", "", None),
        ("word", None, None),
    ],
)
def test_texts_are_read_strictly(form: Any, content: str | None, label: str | None) -> None:
    found = read(form, data(text(content)), config())
    assert found.label == label
    assert found.status == ("malformed" if label is None else "parsed")


@pytest.mark.parametrize(
    "completion", [text("unsafe", finish="length"), text("unsafe", refusal="I cannot say.")]
)
def test_half_an_answer_is_none(completion: dict[str, Any]) -> None:
    assert read("word", data(completion), config()).label is None


@pytest.mark.parametrize(
    "reply",
    [
        b"", b"{", b"[]", b"null", b"<html>503</html>", b'{"choices": []}', b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": ["safe"]}}]}', data({"error": {"message": "x"}}),
        data(top(("safe", "-0.1"))), data(top(("safe", None))), data(top(("safe", math.nan))),
        data(top(("safe", -math.inf))),
        data({"choices": text("safe")["choices"] * 2}), b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_is_no_completion_is_a_failed_check_that_quotes_nothing(reply: bytes) -> None:
    with pytest.raises(JudgeError) as caught:
        read("logprobs", reply, config())
    assert caught.value.reason == "its endpoint's reply is no chat completion"
    assert "html" not in str(caught.value.__cause__)
