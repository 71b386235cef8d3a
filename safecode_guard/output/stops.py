"""From token ids to text that may be shown: incremental decoding and stop sequences."""

from __future__ import annotations

from collections.abc import Sequence

from safecode_guard.models.protocol import Vocabulary

_UNFINISHED = "\ufffd"


class TextStream:
    """Turns a growing list of token ids into text, piece by piece.

    Bytes of an unfinished character are held back, and so is any text that could still become
    a stop sequence. The stop sequence itself never comes out.
    """

    def __init__(self, vocabulary: Vocabulary, *, stop: Sequence[str] = ()) -> None:
        self._vocabulary = vocabulary
        self._stop = tuple(text for text in stop if text)
        self._tokens: list[int] = []
        self._anchor = 0  # decoding starts here, so that the cost per token stays constant
        self._read = 0  # tokens before this one are in the text already
        self._held = ""
        self.text = ""
        """Text released so far."""
        self.stopped = False
        """Whether a stop sequence was reached; nothing is released after it."""

    def push(self, token: int) -> str:
        """Add a token and return the text it releases, possibly empty."""
        self._tokens.append(token)
        anchored = self._vocabulary.decode(self._tokens[self._anchor : self._read])
        extended = self._vocabulary.decode(self._tokens[self._anchor :])
        if extended.endswith(_UNFINISHED):
            return ""
        self._anchor, self._read = self._read, len(self._tokens)
        return self._release(extended[len(anchored) :])

    def flush(self) -> str:
        """Return what was held back, at the end of the answer."""
        if self.stopped:
            return ""
        anchored = self._vocabulary.decode(self._tokens[self._anchor : self._read])
        rest = self._vocabulary.decode(self._tokens[self._anchor :])[len(anchored) :]
        self._anchor = self._read = len(self._tokens)
        piece = self._release(rest) if rest else ""
        held, self._held = ("" if self.stopped else self._held), ""
        self.text += held
        return piece + held

    def _release(self, piece: str) -> str:
        if self.stopped:
            return ""
        pending = self._held + piece
        hits = [at for text in self._stop if (at := pending.find(text)) >= 0]
        if hits:
            self.stopped, self._held = True, ""
            released = pending[: min(hits)]
        else:
            keep = _overlap(pending, self._stop)
            released, self._held = pending[: len(pending) - keep], pending[len(pending) - keep :]
        self.text += released
        return released


def _overlap(text: str, stops: Sequence[str]) -> int:
    """Return the length of the longest end of a text that begins a stop sequence."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if stop.startswith(text[-size:]):
                longest = size
                break
    return longest
