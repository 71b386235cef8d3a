"""A `Branch` over a transformers model: its KV cache, with the decoding loop left to the caller."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import torch
from torch import Tensor

from safecode_guard.engines.transformers.encoded import PER_TOKEN
from safecode_guard.engines.transformers.runner import Captured, Runner, States
from safecode_guard.errors import LogitsUnavailable, UnsupportedFamily, UnsupportedGeneration

_CHUNK: Final = 512
"""Tokens by which a row is continued at a time: behind a cache the attention of a pass is computed
for all of its keys, those that no token may see included."""


class TransformersBranch:
    """A batch of rows being decoded on one transformers model.

    ``logits`` is float32 [rows, vocabulary]; ``candidates`` is the whole vocabulary; ``hidden`` is
    [rows, d] while a layer is watched. Made by `TransformersModel.prefill`.
    """

    logits: Tensor
    candidates: Tensor
    hidden: Tensor | None
    _processors: Callable[[Tensor, Tensor], Tensor] | None
    _position: Tensor | None
    _type: Tensor | None
    _cross: Tensor | None

    def __init__(
        self,
        runner: Runner,
        target: Any,
        inputs: Mapping[str, Any],
        *,
        options: Mapping[str, Any],
        hidden_layer: int | None = None,
    ) -> None:
        self._layer = hidden_layer
        self._runner, self._options = runner, dict(options)
        self._states: States = []
        with runner.running(self._states):
            captured = Captured.of(target, inputs, options)
            self._warps: bool | None = bool(captured.processors)
            self._module = captured.module
            self._ids = captured.ids  # [rows, tokens]
            self._seen = inputs["attention_mask"].to(captured.ids.device)  # 1 where a token is real
            kwargs = captured.kwargs
            prepared = self._module.prepare_inputs_for_generation(
                captured.ids, is_first_iteration=True, **kwargs
            )
            self._take(self._forward(prepared))
        self._padded = not bool(self._seen.all())
        self._prompt_ends_here()
        self._keep(kwargs, inputs)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._ids.shape[0])

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of each row so far, without padding."""
        pairs = zip(self._ids, self._seen.bool(), strict=True)
        return [ids[real].tolist() for ids, real in pairs]

    @property
    def nbytes(self) -> int:
        """Bytes that the branch holds; forks share what they have in common."""
        held = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for layer in self._cache.layers
            for tensor in _tensors(vars(layer))
        }
        return sum(held.values()) + sum(t.nbytes for t in (self.logits, self._ids, self._seen))

    def watch(self, layer: int | None) -> None:
        """Keep the last position's states of a layer from the next forward pass on."""
        self._layer = layer

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token to each row (int64 [rows]) and return the new logits [rows, n]."""
        block = tokens.to(self._ids)[:, None]
        return self._append(block, torch.ones_like(block))

    def extend(self, blocks: Sequence[Sequence[int]]) -> Tensor:
        """Append a block of text tokens to each row, of any lengths, in one forward pass.

        Shorter blocks are padded on their left; the padding is masked and takes no position.

        Raises:
            ValueError: If there is not one block per row, or a block is empty.
            UnsupportedGeneration: If the lengths differ and the model's cache counts every
                token, padding included (sliding windows, linear attention).
        """
        lengths = [len(block) for block in blocks]
        if len(blocks) != self.rows or not all(lengths):
            raise ValueError(f"need {self.rows} blocks of at least one token, got {lengths}")
        longest = max(lengths)
        if min(lengths) != longest and not self._can_pad:
            raise UnsupportedGeneration(
                f"This model cannot continue its rows by blocks of different lengths {lengths}.",
                hint="Prefill the whole prompts instead (Family.ragged_extend is False).",
            )
        ids = self._ids.new_zeros(self.rows, longest)
        seen = torch.zeros_like(ids)
        for i, block in enumerate(blocks):
            ids[i, longest - len(block) :] = ids.new_tensor(block)
            seen[i, longest - len(block) :] = 1
        self._padded = self._padded or min(lengths) != longest
        for start in range(0, longest, _CHUNK):
            chunk = slice(start, start + _CHUNK)
            self._append(ids[:, chunk], seen[:, chunk])
        self._prompt_ends_here()
        return self.logits

    def under(self, options: Mapping[str, Any]) -> Self:
        """Go on under other options of ``generate``; returns itself."""
        if self._options != dict(options):
            self._options, self._warps, self._processors = dict(options), None, None
        return self

    @property
    def can_crop(self) -> bool:
        """Whether the cache keeps each token apart, and knows where each stands."""
        return self._can_pad

    def crop(self, lengths: Sequence[int], *, width: int | None = None) -> Self:
        """Keep the first ``lengths[i]`` tokens of each row, text alone cut off; returns itself.

        Rows are padded on their left to ``width`` tokens, or to the longest of them. The logits
        of a row that was cut are void until it is continued.

        Raises:
            ValueError: If a row has fewer tokens, or ``width`` is less than a length.
            UnsupportedGeneration: If the model's cache does not keep each token apart.
        """
        counts = self._seen.sum(-1)
        width = width or max(lengths)
        kept = torch.as_tensor(list(lengths), device=counts.device)
        if bool((kept > counts).any()) or bool((kept < 1).any()) or width < max(lengths):
            raise ValueError(f"cannot cut rows of {counts.tolist()} tokens to {list(lengths)}")
        if not self.can_crop:
            raise UnsupportedGeneration(
                "This model's cache cannot be cut back.",
                hint="Prefill the whole prompts instead (Family.crops is False).",
            )
        if not self._padded and min(lengths) == width:
            self._narrow(width)
        elif self._ids.shape[1] != width or bool((kept != counts).any()):
            self._align(lengths, width)
        assert self._position is not None  # or it could not be padded
        self._position = self._position - (counts - kept)[:, None]
        self._padded = not bool(self._seen.all())
        self._prompt_ends_here()
        return self

    def _narrow(self, width: int) -> None:
        """Keep the first tokens of unpadded rows; nothing is copied."""
        self._ids, self._seen = self._ids[:, :width], self._seen[:, :width]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[..., :width, :], layer.values[..., :width, :]

    def _align(self, lengths: Sequence[int], width: int) -> None:
        """Keep the first tokens of rows and pad them on their left, by copying."""
        places = self._ids.new_zeros(self.rows, width)  # where each token stands now
        seen = torch.zeros_like(self._seen[:, :1]).expand(-1, width).clone()
        for i, (row, length) in enumerate(zip(self._seen, lengths, strict=True)):
            places[i, width - length :] = row.nonzero()[:length, 0]
            seen[i, width - length :] = 1
        self._ids, self._seen = self._ids.gather(1, places), seen
        with torch.inference_mode():
            for layer in self._cache.layers:
                layer.keys = _gathered(layer.keys, places)
                layer.values = _gathered(layer.values, places)

    def fork(self) -> Self:
        """Return an independent branch from here; cheap, nothing is computed again."""
        other = copy.copy(self)
        other._cache = _copied(self._cache)
        other._states = list(self._states)
        return other

    def select(self, rows: Sequence[int]) -> Self:
        """Keep only these rows, in this order, and free the rest; returns itself."""
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self._ids.device)
        count = self.rows
        with torch.inference_mode():
            self._cache.reorder_cache(index)  # index_select on the batch: shrinks it as well
        self._ids, self._seen = self._ids[index], self._seen[index]
        self.logits = self.logits[index]
        self.hidden = None if self.hidden is None else self.hidden[index]
        if self._position is not None:
            self._position = self._position.index_select(-2, index)
        if self._type is not None:
            self._type = self._type[index]
        if self._cross is not None:
            self._cross = self._cross[index]
        self._states = [_rows(state, index, count) for state in self._states]
        return self

    def join(self, other: Self) -> Self:
        """Append the rows of another branch, which is used up by this; returns itself.

        Raises:
            ValueError: If the branches are not equally wide, padding included.
        """
        if self._ids.shape[1] != other._ids.shape[1]:
            raise ValueError(f"widths differ: {self._ids.shape[1]} and {other._ids.shape[1]}")
        rows, added = self.rows, other.rows
        with torch.inference_mode():
            for layer, more in zip(self._cache.layers, other._cache.layers, strict=True):
                _join_layers(layer, more)
        self._ids = torch.cat([self._ids, other._ids])
        self._seen = torch.cat([self._seen, other._seen])
        self.logits = torch.cat([self.logits, other.logits])
        self.hidden = _cat(self.hidden, other.hidden)
        self._position = _cat(self._position, other._position, dim=-2)
        self._type = _cat(self._type, other._type)
        self._cross = _cat(self._cross, other._cross)
        self._padded = self._padded or other._padded
        self._states = [
            _joined(state, more, rows, added)
            for state, more in zip(self._states, other._states, strict=True)
        ]
        return self

    def warp(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Apply the sampling parameters to scores [len(rows), n] of these rows."""
        if self._warps is None:
            self._processors = self._made_processors()
            self._warps = bool(self._processors)
        if not self._warps:
            return scores
        index = torch.as_tensor(list(rows), dtype=torch.long, device=self._ids.device)
        history, seen = self._ids[index], self._seen[index].bool()
        if self._padded:
            # A row's own first token in place of padding: repeating it penalises nothing else.
            first = history.gather(1, seen.long().argmax(-1, keepdim=True))
            history = torch.where(seen, history, first)
        if self._processors is None:
            self._processors = self._made_processors()
        return self._processors(history, scores)

    def _prompt_ends_here(self) -> None:
        self._prompt_length = self._ids.shape[1]
        self._processors = None

    def _made_processors(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Let ``generate`` make logits processors that know the prompt's length.

        From a single row without padding, since some of them remember the batch they were made
        for, and rows come and go.
        """
        ids = self._ids[:1, : self._prompt_length]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with self._runner.running([]):
            return Captured.of(self._module, inputs, self._options).processors

    # A branch holds between calls, for each row: the position of the next token, the type of
    # tokens after the prompt, and the last row of the cross-attention mask.

    def _keep(self, kwargs: dict[str, Any], inputs: Mapping[str, Any]) -> None:
        positions, types = kwargs.pop("position_ids", None), kwargs.pop("token_type_ids", None)
        cross = kwargs.pop("cross_attention_mask", None)
        self._position = None if positions is None else _next_position(positions)
        self._has_media_types = kwargs.pop("mm_token_type_ids", None) is not None
        self._type = None if types is None else types[:, -1:]  # [rows, 1]
        self._cross = None if cross is None else cross[:, -1:]  # [rows, 1, images, tiles]
        images = set(inputs) - set(PER_TOKEN)
        used = {"past_key_values", "attention_mask", "inputs_embeds", "mm_encoder_outputs"}
        self._kwargs = {
            key: value
            for key, value in kwargs.items()
            if key not in images | used and value is not None
        }
        if unknown := sorted(k for k, v in self._kwargs.items() if isinstance(v, Tensor)):
            raise UnsupportedFamily(
                f"The model keeps inputs between steps that this library does not know: {unknown}.",
                hint="Use a model of a supported family; docs/concepts/models.md lists them.",
            )

    @property
    def _can_pad(self) -> bool:
        cache = self._cache
        return self._position is not None and not any([*cache.is_sliding, *cache.is_linear])

    def _append(self, block: Tensor, seen: Tensor) -> Tensor:
        """Run one forward pass over new tokens [rows, n]; ``seen`` is 0 on their padding."""
        with self._runner.running(self._states):
            self._ids = torch.cat([self._ids, block], -1)
            self._seen = torch.cat([self._seen, seen], -1)
            prepared = self._module.prepare_inputs_for_generation(
                self._ids,
                next_sequence_length=block.shape[1],
                past_key_values=self._cache,
                attention_mask=self._seen if self._padded else None,
                **self._continuation(seen),
                **self._kwargs,
            )
            self._take(self._forward(prepared))
        return self.logits

    def _continuation(self, seen: Tensor) -> dict[str, Any]:
        """Return the per-token inputs of new tokens, [rows, n]."""
        inputs: dict[str, Any] = {}
        if self._position is not None:
            count = seen.cumsum(-1)
            inputs["position_ids"] = self._position + (count - 1).clamp(min=0)
            self._position = self._position + count[:, -1:]
        if self._type is not None:
            inputs["token_type_ids"] = self._type.expand_as(seen)
        if self._has_media_types:
            inputs["mm_token_type_ids"] = torch.zeros_like(seen)
        if self._cross is not None:
            inputs["cross_attention_mask"] = self._cross
        return inputs

    def _forward(self, prepared: dict[str, Any]) -> Any:
        watched = {} if self._layer is None else {"output_hidden_states": True}
        return self._module(**prepared, return_dict=True, **watched)

    def _take(self, outputs: Any) -> None:
        logits, cache = getattr(outputs, "logits", None), getattr(outputs, "past_key_values", None)
        if logits is None or cache is None:
            raise LogitsUnavailable(
                "The model returns no next-token logits or keeps no cache.",
                hint="Use a decoder-only vision-language model, or policy.mode = 'judge_only'.",
            )
        self._cache = cache
        last = logits[:, -1].to(device=self._ids.device, dtype=torch.float32)
        with torch.inference_mode(False):
            self.logits = last.clone()  # an ordinary tensor: callers may edit it in place
            self.candidates = torch.arange(last.shape[-1], device=last.device)
            self.hidden = None if self._layer is None else self._states_of(outputs, self._layer)

    def _states_of(self, outputs: Any, layer: int) -> Tensor:
        layers = getattr(outputs, "hidden_states", None)
        if not layers or not -len(layers) <= layer < len(layers):
            raise UnsupportedGeneration(
                f"The model does not give the states of layer {layer}.",
                hint="Choose a layer that it has, or a strategy that reads no states.",
            )
        last: Tensor = layers[layer][:, -1].to(self._ids.device)
        return last.clone()


def _next_position(positions: Tensor) -> Tensor:
    """Return the position after the last, [rows, 1] or [axes, rows, 1].

    With several axes the first of four counts tokens, and text after an image continues at the
    largest of the image's coordinates.
    """
    after = positions[..., -1:] + 1
    if positions.ndim == 3:
        first = 1 if positions.shape[0] == 4 else 0
        after = after.clone()
        after[first:] = positions[first:].amax(dim=(0, 2))[None, :, None] + 1
    return after


def _gathered(states: Tensor, places: Tensor) -> Tensor:
    """Take tokens of states [rows, heads, tokens, d] by their places [rows, width]."""
    index = places.to(states.device)[:, None, :, None]
    return states.gather(2, index.expand(-1, states.shape[1], -1, states.shape[3]))


def _join_layers(layer: Any, more: Any) -> None:
    """Append the rows of one cache layer to another: keys and values, or recurrent states."""
    for name, value in vars(layer).items():
        other = getattr(more, name)
        if torch.is_tensor(value) and value.ndim > 1:
            setattr(layer, name, torch.cat([value, other.to(value.device)]))
        elif isinstance(value, dict):
            joined = {
                key: torch.cat([kept, other[key]]) if torch.is_tensor(kept) else kept
                for key, kept in value.items()
            }
            setattr(layer, name, joined)


def _cat(rows: Tensor | None, more: Tensor | None, *, dim: int = 0) -> Tensor | None:
    return None if rows is None or more is None else torch.cat([rows, more], dim)


def _joined(state: Any, more: Any, rows: int, added: int) -> Any:
    per_row = torch.is_tensor(state) and state.ndim > 0 and state.shape[0] == rows
    if per_row and torch.is_tensor(more) and more.ndim > 0 and more.shape[0] == added:
        return torch.cat([state, more.to(state.device)])
    return state


def _copied(cache: Any) -> Any:
    """Copy a cache at the price of its layer objects.

    Attention layers append by making new tensors, so two copies can share theirs. Recurrent
    states are written in place, and live in dictionaries: those are cloned.
    """
    other = copy.copy(cache)
    other.layers = [copy.copy(layer) for layer in cache.layers]
    with torch.inference_mode():
        for layer in other.layers:
            for name, value in vars(layer).items():
                if isinstance(value, dict):
                    cloned = {k: v.clone() if torch.is_tensor(v) else v for k, v in value.items()}
                    setattr(layer, name, cloned)
    return other


def _rows(state: Any, index: Tensor, count: int) -> Any:
    per_row = torch.is_tensor(state) and state.ndim > 0 and state.shape[0] == count
    return state.index_select(0, index.to(state.device)) if per_row else state


def _tensors(values: Mapping[str, Any]) -> Iterator[Tensor]:
    for value in values.values():
        if torch.is_tensor(value):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value)
