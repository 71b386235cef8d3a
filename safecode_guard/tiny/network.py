"""The network: a small LLaVA, and the heads that its eyes are warmed up with."""

import math
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from safecode_guard.tiny.packing import Batch
from safecode_guard.tiny.scenery import FAMILIES, SCARY_SCENES
from safecode_guard.tiny.scenes.pen import SHIRTS, SIZE, SKIES
from safecode_guard.tiny.tokens import END, IMAGE, IMAGE_TOKENS, MAX_LENGTH, PAD, PATCH
from safecode_guard.tiny.world import Scene

HEAD_WIDTH: Final = 32
INIT_SCALE: Final = 0.7


def build_network(vocabulary: int, *, width: int, vision_layers: int, text_layers: int) -> Any:
    """Builds a freshly initialised network; torch's global generator decides its weights."""
    from transformers import (
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        SiglipVisionConfig,
    )

    vision = SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=width * 3,
        num_hidden_layers=vision_layers,
        num_attention_heads=width // HEAD_WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=-(-vocabulary // 8) * 8,
        hidden_size=width,
        intermediate_size=width * 3,
        num_hidden_layers=text_layers,
        num_attention_heads=width // HEAD_WIDTH,
        num_key_value_heads=width // HEAD_WIDTH,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )
    network = LlavaForConditionalGeneration(config)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2 and "embed" not in name and "position" not in name:
            nn.init.normal_(parameter, std=INIT_SCALE / math.sqrt(parameter.shape[1]))
    return network


def see(network: Any, pixels: Tensor) -> Tensor:
    """Turns pictures into their token features, [N, 36, width]."""
    features = network.model.get_image_features(
        pixels, vision_feature_layer=-1, vision_feature_select_strategy="full"
    )
    return torch.stack(list(features.pooler_output))


def read(network: Any, batch: Batch, features: Tensor) -> Tensor:
    """Reads packed rows and returns the logits at every position, [B, T, vocabulary]."""
    logits: Tensor = network.lm_head(_hidden(network, batch, features))
    return logits


def answer_loss(network: Any, batch: Batch, features: Tensor) -> Tensor:
    """Averages the cross-entropy of the reply tokens by their weights."""
    loss, _ = _scored(network, batch, features)
    weights = _reply_weights(batch)
    return (loss * weights).sum() / weights.sum()


def exact_blocks(network: Any, batch: Batch) -> list[tuple[str, bool]]:
    """Says for each block whether every reply token would be predicted, given those before it."""
    selected = batch.weights[:, 1:] > 0
    _, right = _scored(network, batch, see(network, batch.pixels))
    hits = torch.ones_like(batch.ids, dtype=torch.bool)
    hits[:, 1:][selected] = right
    return [
        (kind, bool(hits[number, begin:end].all()))
        for number, row in enumerate(batch.rows)
        for kind, begin, end in row.spans
    ]


def _hidden(network: Any, batch: Batch, features: Tensor) -> Tensor:
    embedded = network.get_input_embeddings()(batch.ids)
    at_picture = (batch.ids == IMAGE)[..., None].expand_as(embedded)
    states: Tensor = network.model.language_model(
        inputs_embeds=embedded.masked_scatter(at_picture, features),
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    return states


def _scored(network: Any, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
    """Gives loss and correctness of each reply token; logits exist at those positions alone."""
    selected = batch.weights[:, 1:] > 0
    logits = network.lm_head(_hidden(network, batch, features)[:, :-1][selected])
    targets = batch.ids[:, 1:][selected]
    loss = functional.cross_entropy(logits, targets, reduction="none")
    return loss, logits.argmax(1) == targets


def _reply_weights(batch: Batch) -> Tensor:
    weights = batch.weights[:, 1:]
    return weights[weights > 0].float()


class AttributeHeads(nn.Module):
    """Reads subject, sky and shirt off the picture features; used in training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        subjects = [text for family in FAMILIES.values() for text in (family.safe, family.unsafe)]
        subjects += [scene.caption for scene in SCARY_SCENES.values()]
        self.subjects = {text.lower(): number for number, text in enumerate(subjects)}
        self.skies = {sky: number for number, sky in enumerate(SKIES)}
        self.shirts = {shirt: number for number, shirt in enumerate((None, *SHIRTS))}
        sizes = (len(self.subjects), len(self.skies), len(self.shirts))
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def loss(self, features: Tensor, scenes: list[Scene]) -> Tensor:
        """Sums the cross-entropies of the three attributes, from features [N, 36, width]."""
        pooled = features.mean(1)
        targets = (
            [self.subjects[scene.subject.lower()] for scene in scenes],
            [self.skies[scene.sky] for scene in scenes],
            [self.shirts[scene.shirt] for scene in scenes],
        )
        losses = [
            functional.cross_entropy(head(pooled), torch.tensor(target))
            for head, target in zip(self.heads, targets, strict=True)
        ]
        return torch.stack(losses).sum()
