"""Real tokenizers, trained in a fraction of a second, of the kinds that models come with."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
from safecode_guard.steering.safecode.refusals import RefusalLexicon

END = "<|end|>"
UNKNOWN = "<unk>"
ORDINARY = (
    "I see a dog on the beach. You can throw the ball.",
    "The picture shows a cat. As you can see, it sleeps.",
    "I would say that this is a kitchen. Sure! Here is how.",
    "我看到一只狗。图片里有一个厨房。",
)


@functools.cache
def byte_level(*, filler: int = 0) -> TokenizerVocabulary:
    """Byte-level BPE, as of Qwen and Llama 3; ``filler`` pads the table to a real one's size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if filler:
        tokenizer = _edited(tokenizer, [f"filler{i}" for i in range(filler)])
    return _vocabulary(tokenizer)


@functools.cache
def sentence_piece() -> TokenizerVocabulary:
    """BPE with the mark "▁" for a space and bytes for what it lacks, as of Llama 2 and LLaVA."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[UNKNOWN, END], show_progress=False
    )
    tokenizer.train_from_iterator((t for t in _corpus() if t.isascii()), trainer)
    tokenizer = _edited(
        tokenizer, [f"<0x{byte:02X}>" for byte in range(256)], byte_fallback=True, fuse_unk=True
    )
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _vocabulary(tokenizer)


@functools.cache
def whole_words() -> TokenizerVocabulary:
    """A table of English words alone, everything else unknown: most phrases cannot be written."""
    words = [UNKNOWN, END, "I", "am", "cannot", "sorry", "see", "The", "a", "dog", "Sorry"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _vocabulary(tokenizer)


@functools.cache
def characters() -> TokenizerVocabulary:
    """A table of letters and marks, each its own token."""
    table = [UNKNOWN, END, *" \n.,'!", *map(chr, range(65, 91)), *map(chr, range(97, 123)), *"éöüß"]
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(table)}, [], unk_token=UNKNOWN)
    )
    tokenizer.decoder = decoders.Fuse()
    return _vocabulary(tokenizer)


def _corpus() -> list[str]:
    refusals = [phrase.text for phrase in RefusalLexicon.load().phrases]
    return [*refusals, *ORDINARY] * 4


def _edited(tokenizer: Tokenizer, tokens: list[str], **model: Any) -> Tokenizer:
    data = json.loads(tokenizer.to_str())
    table = data["model"]["vocab"]
    table.update({token: len(table) + i for i, token in enumerate(tokens)})
    data["model"].update(model)
    return Tokenizer.from_str(json.dumps(data))


def _vocabulary(tokenizer: Tokenizer) -> TokenizerVocabulary:
    unknown = UNKNOWN if tokenizer.token_to_id(UNKNOWN) is not None else None
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token=unknown)
    return TokenizerVocabulary(fast)
