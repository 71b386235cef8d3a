from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.output.stops import TextStream
from safecode_guard.testing.model import ByteVocabulary

VOCABULARY = ByteVocabulary()


def stream(text: str, stop: list[str]) -> tuple[list[str], TextStream]:
    """Push a text byte by byte, as far as a decoding loop would."""
    out = TextStream(VOCABULARY, stop=stop)
    pieces = []
    for token in VOCABULARY.encode(text):
        pieces.append(out.push(token))
        if out.stopped:
            break
    pieces.append(out.flush())
    return pieces, out


def expected(text: str, stop: list[str]) -> str:
    ends = [text.index(s) for s in stop if s and s in text]
    return text[: min(ends)] if ends else text


@given(st.text(max_size=40))
def test_pieces_add_up_to_the_text(text):
    pieces, out = stream(text, [])
    assert "".join(pieces) == out.text == text


@given(st.text("abcé ", max_size=30), st.lists(st.text("abcé", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_that_completes(text, stop):
    pieces, out = stream(text, stop)
    released = "".join(pieces)
    assert released == out.text
    assert not any(s in released for s in stop)
    if not any(s in text for s in stop):
        assert released == text
    else:
        assert text.startswith(released)
        assert out.stopped


@given(st.text("ab", max_size=30), st.text("ab", min_size=1, max_size=3))
def test_single_stop_cuts_where_find_would(text, stop):
    assert stream(text, [stop])[1].text == expected(text, [stop])


def test_unfinished_characters_are_held_back():
    tokens = "é".encode()
    out = TextStream(VOCABULARY)
    assert out.push(tokens[0]) == ""
    assert out.push(tokens[1]) == "é"


def test_a_possible_stop_is_held_back_until_it_is_none():
    out = TextStream(VOCABULARY, stop=["###"])
    released = [out.push(token) for token in b"a##b"]
    assert released == ["a", "", "", "##b"]


def test_the_stop_and_what_follows_never_come_out():
    out = TextStream(VOCABULARY, stop=["END"])
    released = "".join(out.push(token) for token in b"okENDmore") + out.flush()
    assert released == "ok"
    assert out.stopped


def test_a_held_tail_comes_out_at_the_end():
    out = TextStream(VOCABULARY, stop=["END"])
    released = [out.push(token) for token in b"okEN"]
    assert "".join(released) == "ok"
    assert out.flush() == "EN"
