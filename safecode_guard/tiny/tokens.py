"""From messages to tokens: the chat template, the tokenizer and the processor."""

from collections.abc import Iterable
from typing import Any, Final

from safecode_guard.tiny.scenes.pen import SIZE

VOCABULARY: Final = 1536
PATCH: Final = 16
IMAGE_TOKENS: Final = (SIZE // PATCH) ** 2
MAX_LENGTH: Final = 512

SPECIAL_TOKENS: Final = (
    *("<pad>", "<|end|>", "<image>", "<|user|>", "<|assistant|>"),
    *("<|system|>", "<|tool|>", "<|tools|>", "<unk>"),
)
PAD, END, IMAGE, USER, ASSISTANT, SYSTEM, TOOL, TOOLS = range(8)

# Images come first within a message. Text cannot forge a special token: "<|" and "<image>" are
# broken up. The tools are named after the last user message, where the model looks for them.
CHAT_TEMPLATE: Final = """
{%- macro plain(text) -%}
  {{- text | replace('<|', '< |') | replace('<image>', '< image>') | replace('<pad>', '< pad>')
    | replace('<unk>', '< unk>') -}}
{%- endmacro -%}
{%- set last = namespace(user=-1) -%}
{%- for message in messages -%}
  {%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}
    {{- raise_exception('unknown role: ' + message['role']) -}}
  {%- endif -%}
  {{- '<|' + message['role'] + '|>' -}}
  {%- set content = message.get('content') -%}
  {%- if content is string -%}
    {{- plain(content) -}}
  {%- elif content -%}
    {%- for part in content -%}
      {%- if part is not string and part['type'] in ['image', 'image_url'] -%}
        {{- '<image>' -}}
      {%- endif -%}
    {%- endfor -%}
    {%- for part in content -%}
      {%- if part is string -%}
        {{- plain(part) -}}
      {%- elif part['type'] == 'text' -%}
        {{- plain(part['text']) -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
  {%- for call in message.get('tool_calls') or [] -%}
    {%- set function = call.get('function') or call -%}
    {%- set arguments = function['arguments'] -%}
    {{- '<tool_call>{"name": ' + (function['name'] | tojson) + ', "arguments": ' -}}
    {{- arguments if arguments is string else (arguments | tojson) -}}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
  {%- if tools and loop.index0 == last.user -%}
    {{- '<|tools|>' -}}
    {%- for tool in tools -%}
      {{- (tool.get('function') or tool)['name'] + (', ' if not loop.last else '') -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
""".strip()


def build_tokenizer(texts: Iterable[str]) -> Any:
    """Trains a byte-level BPE tokenizer in which both verdicts are one token each.

    Raises:
        ValueError: If the texts are too few to make "safe" and "unsafe" single tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    verdicts = [tokenizer.encode(word).ids for word in ("safe", "unsafe")]
    if [len(ids) for ids in verdicts] != [1, 1]:
        raise ValueError(f"verdicts are not single tokens: {verdicts!r}")
    return tokenizer


def build_processor(tokenizer: Any) -> Any:
    """Wraps a tokenizer into a processor that needs Pillow and no torchvision."""
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<|end|>",
        unk_token="<unk>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}),
        tokenizer=fast,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>",
    )
