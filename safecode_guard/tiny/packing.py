"""Packed rows: one picture and several blocks that see it, but not each other."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from safecode_guard.tiny import changes
from safecode_guard.tiny.blocks import Block, Kind
from safecode_guard.tiny.calls import ROBOT_FAMILIES
from safecode_guard.tiny.corpus import Corpus
from safecode_guard.tiny.tokens import (
    ASSISTANT,
    END,
    IMAGE,
    IMAGE_TOKENS,
    PAD,
    SYSTEM,
    TOOL,
    TOOLS,
    USER,
)
from safecode_guard.tiny.world import Scene, draw, scene_seed

ROW_LENGTH: Final = 440
NOISY_SHARE: Final = 0.2
EARLIER_PICTURE_SHARE: Final = 0.04
# Segments: the prefix with the picture is 0, blocks count from 1, padding is -1.
PREFIX: Final = 0
PADDING: Final = -1


@dataclass
class Row:
    """Token ids of a row, and for each token its segment, position and weight in the loss."""

    scenes: list[Scene]
    ids: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    sees_picture: list[bool] = field(default_factory=list)
    spans: list[tuple[Kind, int, int]] = field(default_factory=list)

    def extend(
        self, ids: list[int], weights: list[int], *, segment: int, start: int, sees_picture: bool
    ) -> None:
        """Appends tokens of one segment whose first position is start."""
        self.ids += ids
        self.weights += weights
        self.segments += [segment] * len(ids)
        self.positions += range(start, start + len(ids))
        self.sees_picture += [sees_picture] * len(ids)


@dataclass(frozen=True)
class Batch:
    """Rows as tensors: ids, positions and weights [B, T], mask [B, 1, T, T], pixels [N, 3, S, S].

    The pictures stand in the order of their tokens.
    """

    ids: Tensor
    positions: Tensor
    weights: Tensor
    mask: Tensor
    pixels: Tensor
    rows: list[Row]

    @property
    def scenes(self) -> list[Scene]:
        """The scenes of all pictures."""
        return [scene for row in self.rows for scene in row.scenes]


class Packer:
    """Packs blocks into rows with one tokenizer, whose encodings it remembers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._encoded: dict[str, list[int]] = {}

    def row(
        self,
        scene: Scene,
        blocks: Iterable[Block],
        prefix: list[int] | None = None,
        earlier: tuple[Scene, ...] = (),
    ) -> Row:
        """Packs the blocks that fit behind one picture; the prefix shows the earlier ones."""
        opening = [*(prefix or []), USER, *_picture_tokens(1)]
        row = Row([*earlier, scene])
        silent = [0] * len(opening)
        row.extend(opening, silent, segment=PREFIX, start=0, sees_picture=True)
        for block in blocks:
            ids, weights = self.encode(block)
            if len(row.ids) + len(ids) > ROW_LENGTH:
                continue
            begin, segment = len(row.ids), len(row.spans) + 1
            start = len(opening) if block.sees_picture else 0
            row.extend(ids, weights, segment=segment, start=start, sees_picture=block.sees_picture)
            row.spans.append((block.kind, begin, len(row.ids)))
            row.scenes += block.pictures
        return row

    def encode(self, block: Block) -> tuple[list[int], list[int]]:
        """Encodes a block without the row's picture: ids, and the weights of the reply tokens."""
        ids: list[int] = []
        weights: list[int] = []
        for number, turn in enumerate(block.turns):
            opener = [USER if turn.role == "user" else TOOL]
            if number == 0 and block.sees_picture:
                opener = []  # The role token stands before the picture, in the prefix.
            tools = [TOOLS, *self._ids(", ".join(turn.tools))] if turn.tools else []
            shown = _picture_tokens(len(turn.pictures))
            prompt = [*opener, *shown, *self._ids(turn.prompt), *tools, END, ASSISTANT]
            reply = [*self._ids(turn.reply), END]
            ids += prompt + reply
            rest = min(turn.weight, 1)
            weights += [0] * len(prompt) + [turn.weight] + [rest] * (len(reply) - 1)
        return ids, weights

    def sample(self, rng: random.Random, corpus: Corpus, rows: int) -> Batch:
        """Makes a batch of fresh rows, augmented if the corpus is the training split."""
        made = [self._sampled_row(rng, corpus) for _ in range(rows)]
        scenes = [scene for row in made for scene in row.scenes]
        if corpus.split != "train":
            return collate(made, pictures(scenes, None))
        mix = corpus.mix
        return collate(made, pictures(scenes, rng, changed=mix.changed, hard=mix.hard))

    def _sampled_row(self, rng: random.Random, corpus: Corpus) -> Row:
        family = rng.choice(ROBOT_FAMILIES) if rng.random() < corpus.mix.robots else None
        scene = draw(scene_seed(rng, corpus.split), family)
        system = corpus.system(scene)
        prefix = [SYSTEM, *self._ids(system.text), END] if system.text else []
        earlier: tuple[Scene, ...] = ()
        if rng.random() < EARLIER_PICTURE_SHARE:
            earlier = (draw(scene_seed(rng, corpus.split)),)
            turn = self.encode(corpus.look(earlier[0]))[0]
            prefix += [USER, *_picture_tokens(1), *turn]
        return self.row(scene, corpus.blocks(scene, system), prefix, earlier)

    def _ids(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = self._tokenizer.encode(text).ids
        return self._encoded[text]


def collate(rows: list[Row], pixels: Tensor) -> Batch:
    """Pads rows on the right and lets each token see its own segment and its picture."""
    longest = max(len(row.ids) for row in rows)
    length = -(-longest // 8) * 8

    def padded(lists: Iterable[list[int] | list[bool]], fill: int) -> Tensor:
        return torch.tensor([[*values, *[fill] * (length - len(values))] for values in lists])

    segments = padded((row.segments for row in rows), PADDING)
    sees_picture = padded((row.sees_picture for row in rows), 1).bool()
    same = segments[:, :, None] == segments[:, None, :]
    picture = (segments[:, None, :] == PREFIX) & sees_picture[:, :, None]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return Batch(
        ids=padded((row.ids for row in rows), PAD),
        positions=padded((row.positions for row in rows), 0),
        weights=padded((row.weights for row in rows), 0),
        mask=(causal & (same | picture))[:, None],
        pixels=pixels,
        rows=rows,
    )


def _picture_tokens(count: int) -> list[int]:
    return [IMAGE] * (IMAGE_TOKENS * count)


def pictures(
    scenes: list[Scene], rng: random.Random | None, *, changed: float = 0.5, hard: float = 0.0
) -> Tensor:
    """Turns scenes into pixels in [-1, 1].

    Args:
        scenes: What is drawn.
        rng: Adds ordinary changes, light and noise; None leaves the pictures as they are.
        changed: Share of the pictures that are changed.
        hard: Of these, how many are changed in one of the harder ways at least.
    """
    noise = np.random.default_rng(rng.getrandbits(64)) if rng else None
    pixels = []
    for scene in scenes:
        image = scene.image
        if rng and rng.random() < changed:
            change = rng.choice(tuple(changes.PICTURES.values()))
            if rng.random() < hard:
                change = rng.choice(changes.HARD)
            image = change(image, rng).resize(scene.image.size, Image.Resampling.BICUBIC)
        values = np.asarray(image, np.float32) / 255
        if rng and noise:
            values = values * rng.uniform(0.88, 1.1) + rng.uniform(-0.04, 0.04)
            if rng.random() < NOISY_SHARE:
                grain = noise.standard_normal(values.shape, dtype=np.float32)
                values = values + grain * rng.uniform(0.03, 1.0)
            values = values.clip(0, 1)
        pixels.append(values)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).sub(0.5).div(0.5).contiguous()
