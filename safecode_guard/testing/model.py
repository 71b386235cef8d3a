"""A vision-language model whose next-token logits follow a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from string import ascii_letters
from typing import Final, Self, cast

import torch
from PIL import Image
from torch import Tensor

from safecode_guard.engines.transformers.engine import CachedEngine
from safecode_guard.engines.transformers.protocol import Branch, Prompts
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Sampling, Tool, Vocabulary
from safecode_guard.turns.turn import Role, TextPart, Turn, TurnMessage

EOS: Final = 256
IMAGE: Final = 257
_ROLES: Final[dict[Role, int]] = {"system": 258, "user": 259, "assistant": 260, "tool": 261}
_FIRST_WORD: Final = 262
_LOW: Final = -30.0
"""The logit of every token that a script does not want."""


class ByteVocabulary:
    """A tokenizer of bytes, a few special tokens, and some whole words; lossless on any text."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self.words = tuple(dict.fromkeys(("unsafe", "safe", *words)))
        self.eos_ids = frozenset({EOS})
        self.special_ids = frozenset({EOS, IMAGE, *_ROLES.values()})
        self.size = _FIRST_WORD + len(self.words)
        self.id = f"bytes:{'|'.join(self.words)}"
        by_length = sorted(enumerate(self.words), key=lambda item: -len(item[1]))
        self._words = [(word.encode(), _FIRST_WORD + i) for i, word in by_length]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text: at each place the longest word, or one byte."""
        data, ids, at = text.encode(errors="replace"), [], 0
        while at < len(data):
            found = next((pair for pair in self._words if data.startswith(pair[0], at)), None)
            ids.append(found[1] if found else data[at])
            at += len(found[0]) if found else 1
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        pieces = (self._bytes(token) for token in ids if token not in self.special_ids)
        return b"".join(pieces).decode(errors="replace")

    @property
    def known_words(self) -> Sequence[str]:
        """The whole words and the letters, sorted."""
        return sorted(word for word in {*self.words, *ascii_letters} if word.isalpha())

    @property
    def token_bytes(self) -> list[bytes]:
        """The bytes of each token, for grammars; special ones by their names."""
        special = [f"<special {token}>".encode() for token in range(256, _FIRST_WORD)]
        words = [word.encode() for word in self.words]
        return [*(bytes([token]) for token in range(256)), *special, *words]

    def _bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else self.words[token - _FIRST_WORD].encode()


@dataclass(frozen=True)
class Scene:
    """What a script of `ScriptedVLM` sees of one row."""

    prompt: str
    """The whole conversation's text."""
    question: str
    """The text of the last message before the answer."""
    images: tuple[Image.Image, ...]
    written: str
    """The answer so far."""


Replies = Mapping[str, float]
"""Replies that the model may give, each with its logit."""


class ScriptedPrompts:
    """Encoded rows of `ScriptedVLM`: token ids and pictures."""

    image_ids = frozenset({IMAGE})

    def __init__(self, ids: list[list[int]], images: list[tuple[Image.Image, ...]]) -> None:
        self.ids = ids
        self.images = images

    def cut(self, lengths: Sequence[int], *, width: int | None = None) -> Self:
        """Return the rows cut to their first tokens, with all their pictures."""
        ids = [row[:length] for row, length in zip(self.ids, lengths, strict=True)]
        return type(self)(ids, list(self.images))


class ScriptedBranch:
    """Rows of `ScriptedVLM` being decoded; logits are made by the script at every step."""

    hidden: Tensor | None = None

    def __init__(self, model: ScriptedVLM, prompts: ScriptedPrompts, sampling: Sampling) -> None:
        self._watched = False
        self.candidates = torch.arange(model.vocabulary.size)
        self._model = model
        self._sampling = sampling
        self._ids = [list(row) for row in prompts.ids]
        self._images = list(prompts.images)
        self.logits = self._score()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self._ids)

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row and return the new logits [rows, n]."""
        return self._append("step", [[int(token)] for token in tokens])

    def extend(self, blocks: Sequence[Sequence[int]]) -> Tensor:
        """Append a block of tokens to each row and return the new logits [rows, n]."""
        return self._append("extend", blocks)

    def fork(self) -> ScriptedBranch:
        """Return an independent branch from here."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._ids = [list(row) for row in self._ids]
        other._images = list(self._images)
        return other

    @property
    def nbytes(self) -> int:
        """Nothing: there are no caches."""
        return 0

    @property
    def can_crop(self) -> bool:
        """Always: there are no caches."""
        return True

    def crop(self, lengths: Sequence[int], *, width: int | None = None) -> ScriptedBranch:
        """Keep the first tokens of each row; returns itself."""
        self._ids = [row[:length] for row, length in zip(self._ids, lengths, strict=True)]
        return self

    def select(self, rows: Sequence[int]) -> ScriptedBranch:
        """Keep only these rows, in this order; returns itself."""
        self._ids = [list(self._ids[row]) for row in rows]
        self._images = [self._images[row] for row in rows]
        self.logits = self.logits[list(rows)]
        return self

    def join(self, other: ScriptedBranch) -> ScriptedBranch:
        """Append the rows of another branch; returns itself."""
        self._ids += other._ids
        self._images += other._images
        self.logits = self._score()
        return self

    def watch(self, layer: int | None) -> None:
        """Give states from the next step on: those of a scripted model are its logits."""
        self._watched = layer is not None

    def warp(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Divide scores [len(rows), n] by the temperature; other parameters are left out."""
        temperature = self._sampling.temperature
        return scores / temperature if temperature else scores

    def _append(self, kind: str, blocks: Sequence[Sequence[int]]) -> Tensor:
        self._model.calls.append((kind, self.rows, sum(map(len, blocks))))
        for row, block in zip(self._ids, blocks, strict=True):
            row.extend(block)
        self.logits = self._score()
        self.hidden = self.logits if self._watched else None
        return self.logits

    def _score(self) -> Tensor:
        pairs = zip(self._ids, self._images, strict=True)
        scores = [self._model.next_logits(ids, images) for ids, images in pairs]
        return torch.stack(scores) if scores else torch.zeros(0, self._model.vocabulary.size)


class ScriptedVLM(CachedEngine):
    """A vision-language model whose next-token logits follow a script.

    It keeps no prompts: `calls` counts what each turn computes. Asked for a verdict (a question
    that ends with "safe or unsafe."), it gives ``p_unsafe`` with ``label_mass``. Otherwise it gives
    one of its ``replies``, weighted by their logits; with several, steering has something to choose
    between. Both may be functions of the `Scene`, so a second view of a picture can be answered
    differently.

    Example:
        >>> vlm = ScriptedVLM({"I can't help with that.": 0.0, "Run along the edge.": 0.4},
        ...                   p_unsafe=0.9)
        >>> vlm.generate([turn], Sampling())                     # doctest: +SKIP
        ['Run along the edge.']
    """

    def __init__(
        self,
        replies: str | Replies | Callable[[Scene], str | Replies] = "All right.",
        *,
        p_unsafe: float | Callable[[Scene], float] = 0.1,
        label_mass: float = 0.99,
        error: Exception | None = None,
        words: Sequence[str] = (),
        family: Family | None = None,
        id: str = "scripted-vlm",
    ) -> None:
        """Make the model.

        Args:
            replies: What it says when it is not asked for a verdict.
            p_unsafe: What it finds when it is.
            label_mass: Probability of a label as its next token then.
            error: Raised whenever prompts are prefilled.
            words: Whole-word tokens, beside bytes and the two labels.
            family: Its family record.
            id: Its name.
        """
        self.id = id
        self.family = family or Family(name="scripted")
        self.vocabulary: Vocabulary = ByteVocabulary(words)
        self.kept = None
        self.calls: list[tuple[str, int, int]] = []
        """Every forward pass so far: kind (prefill, extend, step), rows, tokens."""
        self._replies = replies
        self._p_unsafe = p_unsafe
        self._label_mass = label_mass
        self._error = error

    def encode(
        self, turns: Sequence[Turn], *, tools: Sequence[Tool] = (), seen: object = None
    ) -> ScriptedPrompts:
        """Render conversations: a role token, then text and image tokens, message by message."""
        declared = self.vocabulary.encode(f"tools: {[dict(t) for t in tools]}") if tools else []
        rows = []
        for turn in turns:
            messages = [token for message in turn.messages for token in self._render(message)]
            rows.append([*declared, *messages, _ROLES["assistant"]])
        return ScriptedPrompts(rows, [turn.pixels for turn in turns])

    def prefill(
        self, prompts: Prompts, sampling: Sampling, *, hidden_layer: int | None = None
    ) -> ScriptedBranch:
        """Return a branch with the scripted logits of these rows."""
        encoded = cast(ScriptedPrompts, prompts)
        self.calls.append(("prefill", len(prompts.ids), sum(map(len, prompts.ids))))
        if self._error is not None:
            raise self._error
        branch = ScriptedBranch(self, encoded, sampling)
        branch.watch(hidden_layer)
        branch.hidden = branch.logits if hidden_layer is not None else None
        return branch

    def resume(self, branch: Branch, sampling: Sampling) -> ScriptedBranch:
        """Return a fork of a branch that goes on under other sampling parameters."""
        other = cast(ScriptedBranch, branch).fork()
        other._sampling = sampling
        return other

    def generate(self, turns: Sequence[Turn], sampling: Sampling) -> list[str]:
        """Return the likeliest reply to each conversation."""
        branch = self.prefill(self.encode(turns), sampling)
        written: list[list[int]] = [[] for _ in turns]
        for _ in range(sampling.max_tokens):
            tokens = branch.logits.argmax(-1)
            for row, token in zip(written, tokens.tolist(), strict=True):
                if EOS not in row:
                    row.append(token)
            if all(EOS in row for row in written):
                break
            branch.step(tokens)
        texts = [self.vocabulary.decode(row) for row in written]
        return [_cut_at(text, sampling.stop) for text in texts]

    def working_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the picture's own size: nothing is resized."""
        return image.size

    def samples(self, sampling: Sampling) -> bool:
        """Return whether sampling was asked for."""
        return bool(sampling.do_sample)

    def next_logits(self, ids: Sequence[int], images: tuple[Image.Image, ...]) -> Tensor:
        """Return the scripted next-token logits [n] after one row's tokens."""
        scene, answer = self._scene(ids, images)
        if scene.question.rstrip(". ").endswith("safe or unsafe") and not answer:
            return self._label_logits(scene)
        replies = self._replies(scene) if callable(self._replies) else self._replies
        weights = {replies: 0.0} if isinstance(replies, str) else replies
        logits = torch.full((self.vocabulary.size,), _LOW)
        for reply, weight in weights.items():
            tokens = [*self.vocabulary.encode(reply), EOS]
            if tokens[: len(answer)] == answer and len(tokens) > len(answer):
                token = tokens[len(answer)]
                logits[token] = torch.logaddexp(logits[token], torch.tensor(float(weight)))
        if bool((logits == _LOW).all()):
            logits[EOS] = 0.0
        return logits

    def _label_logits(self, scene: Scene) -> Tensor:
        p = self._p_unsafe(scene) if callable(self._p_unsafe) else self._p_unsafe
        shares = {"unsafe": p * self._label_mass, "safe": (1 - p) * self._label_mass}
        logits = torch.full((self.vocabulary.size,), _LOW)
        for label, share in shares.items():
            logits[self.vocabulary.encode(label)[0]] = math.log(max(share, 1e-12))
        logits[EOS] = math.log(max(1 - self._label_mass, 1e-12))
        return logits

    def _render(self, message: TurnMessage) -> list[int]:
        ids = [_ROLES[message.role]]
        for part in message.parts:
            ids += self.vocabulary.encode(part.text) if isinstance(part, TextPart) else [IMAGE]
        for call in message.tool_calls:
            ids += self.vocabulary.encode(f"calls {call.name} {call.arguments}")
        return ids

    def _scene(
        self, ids: Sequence[int], images: tuple[Image.Image, ...]
    ) -> tuple[Scene, list[int]]:
        """Return what the script sees, and the tokens of the answer so far."""
        roles = set(_ROLES.values())
        groups = [list(group) for _, group in groupby(ids, key=_numbered(roles))]
        opened = bool(groups) and groups[-1][0] == _ROLES["assistant"]
        answer = groups[-1][1:] if opened else []
        asked = groups[:-1] if opened else groups
        decode = self.vocabulary.decode
        prompt = "\n".join(decode(group) for group in asked)
        question = decode(asked[-1]) if asked else ""
        return Scene(prompt, question, images, decode(answer)), answer


def _numbered(starts: set[int]) -> Callable[[int], int]:
    """Return a key that numbers runs of tokens, a new one at each start token."""
    number = 0

    def key(token: int) -> int:
        nonlocal number
        number += token in starts
        return number

    return key


def _cut_at(text: str, stops: Sequence[str]) -> str:
    places = [text.index(stop) for stop in stops if stop in text]
    return text[: min(places, default=len(text))]
