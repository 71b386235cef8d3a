"""Tiny vision-language models of many families, with random weights, built without any files.

They know nothing, but run every line of transformers that the real ones run. One function a
family; `build` caches the finished `TransformersModel` for the session.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.processors import image_only
from safecode_guard.turns.images import CheckedImage
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

Parts = tuple[Any, Any]
"""A model and its processor."""

HIDDEN: Final = 32
PATCH: Final = 14
SIDE: Final = 56
"""Working size of the towers: 4 x 4 patches."""

CORPUS: Final = (
    "I'm sorry, but I can't help with that request.",
    "I cannot assist with this. As an AI model I must decline.",
    "Hello! Here is how you can climb the wall safely.",
    "The image shows a kitchen with a knife and vegetables on the table.",
    "How do I sharpen this? What about the second one? describe the scene, safe or unsafe",
    "unsafe safe Unsafe Safe",
)

TEMPLATE: Final = """
{%- for m in messages -%}
  {{- m['role'].upper() + ': ' -}}
  {%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}
    {%- for c in m['content'] -%}
      {%- if c['type'] == 'image' -%}{{- 'IMAGE' -}}{%- else -%}{{- c['text'] -}}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- for call in m.get('tool_calls', []) -%}
    {{- '<tool_call>' + call['function']|tojson + '</tool_call>' -}}
  {%- endfor -%}
  {{- '\n' -}}
{%- endfor -%}
{%- if tools -%}{{- 'TOOLS: ' + tools|tojson + '\n' -}}{%- endif -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
""".strip()


def template(image: str) -> str:
    """Return the chat template with a family's own way to write an image."""
    return TEMPLATE.replace("IMAGE", image)


def tokenizer(*specials: str, **named: str) -> Any:
    """Train a byte-level BPE tokenizer with special tokens; ``named`` become attributes."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    base.train_from_iterator(
        CORPUS * 20,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=["<pad>", "<s>", "</s>", "<unk>", *specials, *named.values()],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=base,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )


def text_config(tokens: Any, **changes: Any) -> dict[str, Any]:
    """Return the values of a tiny language model's config."""
    return {
        "vocab_size": len(tokens),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sliding_window": None,
        **changes,
    }


def vision_config(**changes: Any) -> dict[str, Any]:
    """Return the values of a tiny vision tower's config."""
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": PATCH,
        "image_size": SIDE,
        **changes,
    }


def square() -> dict[str, int]:
    """Return the size of an image processor that stretches every image to a square."""
    return {"height": SIDE, "width": SIDE}


# --- LLaVA and its kin -------------------------------------------------------------------------

CLIP: Final = {"model_type": "clip_vision_model", "projection_dim": HIDDEN}
SIGLIP: Final = {"model_type": "siglip_vision_model", "vision_use_head": False}
GRID: Final = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]


def llava() -> Parts:
    tokens = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=vision_config(**CLIP),
        text_config=hf.LlamaConfig(**text_config(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square()),
        tokenizer=tokens,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\\n"),
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next() -> Parts:
    tokens = tokenizer("<image>")
    config = hf.LlavaNextConfig(
        vision_config=vision_config(**CLIP),
        text_config=hf.LlamaConfig(**text_config(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_grid_pinpoints=GRID,
    )
    processor = hf.LlavaNextProcessor(
        image_processor=hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": SIDE}, crop_size=square(), image_grid_pinpoints=GRID
        ),
        tokenizer=tokens,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\\n"),
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> Parts:
    tokens = tokenizer("<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=vision_config(**SIGLIP),
        text_config=hf.Qwen2Config(**text_config(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        video_token_id=tokens.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=GRID,
    )
    processor = image_only(hf.LlavaOnevisionProcessor)(
        image_processor=hf.LlavaOnevisionImageProcessorPil(
            size=square(), image_grid_pinpoints=GRID
        ),
        tokenizer=tokens,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\\n"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


# --- Qwen-VL -----------------------------------------------------------------------------------

QWEN_MARKS: Final = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def qwen_ids(tokens: Any) -> dict[str, int]:
    """Return the ids of the marks that a Qwen config names."""
    names = ("vision_start", "vision_end", "image", "video")
    marks = QWEN_MARKS[2:]
    return {
        f"{name}_token_id": tokens.convert_tokens_to_ids(mark)
        for name, mark in zip(names, marks, strict=True)
    }


def qwen_text(tokens: Any, **changes: Any) -> dict[str, Any]:
    """Return a text config with positions of three axes."""
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    return text_config(tokens, rope_parameters=rope, **changes)


def qwen_processor(cls: Any, tokens: Any, patch: int) -> Any:
    return image_only(cls)(
        image_processor=hf.Qwen2VLImageProcessorPil(
            patch_size=patch, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
        ),
        tokenizer=tokens,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


def qwen2_vl() -> Parts:
    tokens = tokenizer(*QWEN_MARKS)
    config = hf.Qwen2VLConfig(
        vision_config={
            "depth": 2,
            "embed_dim": HIDDEN,
            "hidden_size": HIDDEN,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": PATCH,
        },
        text_config=qwen_text(tokens),
        **qwen_ids(tokens),
    )
    processor = qwen_processor(hf.Qwen2VLProcessor, tokens, PATCH)
    return hf.Qwen2VLForConditionalGeneration(config), processor


def qwen2_5_vl() -> Parts:
    tokens = tokenizer(*QWEN_MARKS)
    config = hf.Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": HIDDEN,
            "out_hidden_size": HIDDEN,
            "num_heads": 4,
            "intermediate_size": 2 * HIDDEN,
            "patch_size": PATCH,
            "window_size": SIDE,
            "fullatt_block_indexes": [1],
        },
        text_config=qwen_text(tokens),
        **qwen_ids(tokens),
    )
    processor = qwen_processor(hf.Qwen2_5_VLProcessor, tokens, PATCH)
    return hf.Qwen2_5_VLForConditionalGeneration(config), processor


def qwen3_vision(**changes: Any) -> dict[str, Any]:
    return {
        "depth": 2,
        "hidden_size": HIDDEN,
        "out_hidden_size": HIDDEN,
        "num_heads": 4,
        "intermediate_size": 2 * HIDDEN,
        "patch_size": 16,
        "num_position_embeddings": 64,
        **changes,
    }


def qwen3_vl() -> Parts:
    tokens = tokenizer(*QWEN_MARKS)
    config = hf.Qwen3VLConfig(
        vision_config=qwen3_vision(deepstack_visual_indexes=[0, 1]),
        text_config=qwen_text(tokens, head_dim=8),
        **qwen_ids(tokens),
    )
    processor = qwen_processor(hf.Qwen3VLProcessor, tokens, 16)
    return hf.Qwen3VLForConditionalGeneration(config), processor


def qwen3_5() -> Parts:
    tokens = tokenizer(*QWEN_MARKS)
    text = qwen_text(
        tokens,
        num_hidden_layers=4,
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        layer_types=["linear_attention", "full_attention"] * 2,
    )
    text["rope_parameters"] |= {"partial_rotary_factor": 0.5}
    config = hf.Qwen3_5Config(vision_config=qwen3_vision(), text_config=text, **qwen_ids(tokens))
    processor = qwen_processor(hf.Qwen3VLProcessor, tokens, 16)
    return hf.Qwen3_5ForConditionalGeneration(config), processor


# --- Idefics and SmolVLM -----------------------------------------------------------------------

IDEFICS_MARKS: Final = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{i}_col_{j}>" for i in range(1, 4) for j in range(1, 4)),
)


def idefics2() -> Parts:
    tokens = tokenizer(*IDEFICS_MARKS[:3])
    config = hf.Idefics2Config(
        vision_config=vision_config(),
        perceiver_config={
            "hidden_size": HIDDEN,
            "resampler_n_latents": 8,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "num_key_value_heads": 2,
            "resampler_head_dim": 8,
        },
        text_config=hf.MistralConfig(**text_config(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Idefics2Processor(
        image_processor=hf.Idefics2ImageProcessorPil(
            size={"longest_edge": SIDE, "shortest_edge": SIDE // 2}, do_image_splitting=False
        ),
        tokenizer=tokens,
        image_seq_len=8,
        chat_template=template("<image>"),
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


def split_processor(cls: Any, images: Any, tokens: Any, **others: Any) -> Any:
    """Return a processor that splits large images into pieces of the tower's size."""
    return image_only(cls)(
        image_processor=images(
            size={"longest_edge": 2 * SIDE},
            max_image_size={"longest_edge": SIDE},
            do_image_splitting=True,
        ),
        tokenizer=tokens,
        image_seq_len=4,
        chat_template=template("<image>"),
        **others,
    )


def idefics3() -> Parts:
    tokens = tokenizer(*IDEFICS_MARKS)
    config = hf.Idefics3Config(
        vision_config=vision_config(),
        text_config=hf.LlamaConfig(**text_config(tokens)),
        scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = split_processor(hf.Idefics3Processor, hf.Idefics3ImageProcessorPil, tokens)
    return hf.Idefics3ForConditionalGeneration(config), processor


def smolvlm() -> Parts:
    tokens = tokenizer(*IDEFICS_MARKS)
    config = hf.SmolVLMConfig(
        vision_config=vision_config(),
        text_config=hf.LlamaConfig(**text_config(tokens)),
        scale_factor=2,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = split_processor(
        hf.SmolVLMProcessor, hf.SmolVLMImageProcessorPil, tokens, video_processor=None
    )
    return hf.SmolVLMForConditionalGeneration(config), processor


# --- BLIP --------------------------------------------------------------------------------------


def qformer_config(**changes: Any) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "encoder_hidden_size": HIDDEN,
        "cross_attention_frequency": 1,
        **changes,
    }


def instructblip() -> Parts:
    tokens, questions = tokenizer("<image>"), tokenizer("[CLS]")
    config = hf.InstructBlipConfig(
        vision_config=vision_config(),
        qformer_config=qformer_config(vocab_size=len(questions)),
        text_config=hf.LlamaConfig(**text_config(tokens)).to_dict(),
        num_query_tokens=8,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = hf.InstructBlipProcessor(
        image_processor=hf.BlipImageProcessorPil(size=square()),
        tokenizer=tokens,
        qformer_tokenizer=questions,
        num_query_tokens=8,
    )
    return hf.InstructBlipForConditionalGeneration(config), processor


def blip2() -> Parts:
    tokens = tokenizer("<image>")
    text = text_config(tokens, ffn_dim=2 * HIDDEN, word_embed_proj_dim=HIDDEN)
    config = hf.Blip2Config(
        vision_config=vision_config(),
        qformer_config=qformer_config(vocab_size=len(tokens)),
        text_config=hf.OPTConfig(**text).to_dict(),
        num_query_tokens=8,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )
    processor = hf.Blip2Processor(
        image_processor=hf.BlipImageProcessorPil(size=square()),
        tokenizer=tokens,
        num_query_tokens=8,
    )
    return hf.Blip2ForConditionalGeneration(config), processor


# --- others ------------------------------------------------------------------------------------


def internvl() -> Parts:
    tokens = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = hf.InternVLConfig(
        vision_config=vision_config(patch_size=[PATCH, PATCH], image_size=[SIDE, SIDE]),
        text_config=hf.Qwen2Config(**text_config(tokens)),
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = image_only(hf.InternVLProcessor)(
        image_processor=hf.GotOcr2ImageProcessorPil(
            size=square(), crop_to_patches=True, max_patches=4
        ),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>\\n"),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def gemma3() -> Parts:
    tokens = tokenizer(
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
    )
    ids = tokens.convert_tokens_to_ids
    text = text_config(
        tokens,
        num_hidden_layers=3,
        head_dim=16,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        query_pre_attn_scalar=16,
    )
    config = hf.Gemma3Config(
        vision_config=vision_config(vision_use_head=False),
        text_config=hf.Gemma3TextConfig(**text),
        mm_tokens_per_image=4,
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        image_token_index=ids("<image_soft_token>"),
        image_token_id=ids("<image_soft_token>"),
    )
    processor = hf.Gemma3Processor(
        image_processor=hf.Gemma3ImageProcessorPil(size=square()),
        tokenizer=tokens,
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def paligemma() -> Parts:
    tokens = tokenizer(image_token="<image>")
    images = hf.SiglipImageProcessorPil(size=square())
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(image_processor=images, tokenizer=tokens)
    config = hf.PaliGemmaConfig(  # the processor adds location tokens to the tokenizer
        vision_config=vision_config(projection_dim=HIDDEN, **SIGLIP),
        text_config=hf.GemmaConfig(**text_config(tokens, head_dim=16)),
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def mllama() -> Parts:
    tokens = tokenizer("<|image|>")
    text = text_config(
        tokens,
        num_hidden_layers=4,
        cross_attention_layers=[1, 3],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )
    config = hf.MllamaConfig(
        vision_config={
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "patch_size": PATCH,
            "image_size": SIDE,
            "max_num_tiles": 4,
            "vision_output_dim": 2 * HIDDEN,
            "intermediate_layers_indices": [0],
            "supported_aspect_ratios": [
                [1, 1],
                [1, 2],
                [1, 3],
                [1, 4],
                [2, 1],
                [2, 2],
                [3, 1],
                [4, 1],
            ],
        },
        text_config=text,
        image_token_index=tokens.convert_tokens_to_ids("<|image|>"),
    )
    processor = hf.MllamaProcessor(
        image_processor=hf.MllamaImageProcessorPil(size=square(), max_image_tiles=4),
        tokenizer=tokens,
        chat_template=template("<|image|>"),
    )
    return hf.MllamaForConditionalGeneration(config), processor


BUILDERS: Final[dict[str, Callable[[], Parts]]] = {
    builder.__name__: builder
    for builder in (
        llava,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        qwen3_5,
        idefics2,
        idefics3,
        smolvlm,
        instructblip,
        blip2,
        internvl,
        gemma3,
        paligemma,
        mllama,
    )
}
NAMES: Final = tuple(BUILDERS)


def parts(name: str, *, seed: int = 0) -> Parts:
    """Build a family's tiny model and its processor, afresh; equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, processor = BUILDERS[name]()
        enliven(model, processor.tokenizer)
    return model.eval(), processor


@torch.no_grad()
def enliven(model: Any, tokens: Any) -> None:
    """Draw weights under which the image and every word matter, and no mark is ever said."""
    for weight_name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=0.1)  # the default gives nearly uniform logits
        elif weight_name.endswith("gate"):
            weight.fill_(1.0)  # Mllama's closed gates would hide the image
    said = model.get_output_embeddings().weight
    for mark in tokens.all_special_ids:
        if mark != tokens.eos_token_id and mark < said.shape[0]:
            said[mark] = 0.0  # a generated image token would ask for an image


BUILT: Final[list[TransformersModel]] = []
"""The models that `build` has made, which outlive a test."""


@functools.cache
def build(name: str) -> TransformersModel:
    """Return a family's tiny model, one object for the whole session."""
    made = TransformersModel(*parts(name), id=name)
    BUILT.append(made)
    return made


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Draw an image of coloured noise blocks."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(blocks.numpy()).resize(size, Image.Resampling.NEAREST)


def checked(image: Image.Image, message: int = 0, block: int = 0) -> CheckedImage:
    """Wrap a picture as an image that passed the policy's checks."""
    return CheckedImage(image, f"{hash(image.tobytes()):x}", "image/png", message, block)


def ask(text: str, *images: Image.Image) -> Turn:
    """Return a conversation of one user message: its images, then its text."""
    parts = (*(ImagePart(i) for i in range(len(images))), TextPart(text))
    return Turn((TurnMessage("user", parts),), tuple(checked(image) for image in images))
