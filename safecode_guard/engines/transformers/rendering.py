"""From a conversation to the text of a prompt, by the model's own chat template.

Nothing of the conversation may be lost on the way, and nothing in it may pass for a control
token: a template that drops a message, an image or a tool is refused, and what users and tools
write is broken up where it spells a special token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from jinja2 import TemplateError as JinjaError

from safecode_guard.errors import TemplateError
from safecode_guard.models.families import Family
from safecode_guard.models.protocol import Tool
from safecode_guard.turns.turn import ImagePart, TextPart, Turn, TurnMessage

Form = Literal["mixed", "strings", "lists"]
"""How content without an image is written; ``mixed``: lists, but strings around tools."""

_FORMS: Final[tuple[Form, ...]] = ("mixed", "strings", "lists")
_LEAKS: Final = ("'type': 'text'", '"type": "text"')
_NOISE: Final = re.compile(r"\\[nrt]|\W")


@dataclass(frozen=True, eq=False)
class Renderer:
    """Renders conversations for one processor.

    ``control`` matches every control token, longest first; no text of a conversation may turn
    into one of ``control_ids``.
    """

    processor: Any
    family: Family
    template: Any
    control: re.Pattern[str]
    control_ids: frozenset[int]

    @classmethod
    def of(cls, processor: Any, family: Family) -> Renderer:
        """Return the renderer of a processor."""
        tokenizer = processor.tokenizer
        template = getattr(processor, "chat_template", None) or tokenizer.chat_template
        tokens = control_tokens(processor, str(template or ""))
        ids = {tokenizer.convert_tokens_to_ids(token) for token in tokens}
        spelled = "|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True))
        return cls(
            processor,
            family,
            template,
            re.compile(spelled or r"(?!)"),
            frozenset(i for i in ids if i is not None and i != tokenizer.unk_token_id),
        )

    def render(self, turn: Turn, tools: Sequence[Tool] = ()) -> str:
        """Return the prompt of a conversation, ready for the processor.

        Raises:
            TemplateError: If the layout is refused, or something of it would be lost.
        """
        if not turn.messages:
            raise TemplateError("The conversation is empty.", hint="Send at least one message.")
        self._check_control([self.neutralise(message.text) for message in turn.messages])
        if self.family.layout == "plain":
            return self._plain(turn, tools)
        if self.template is None:
            raise TemplateError(
                "The model has no chat template.",
                hint="Set processor.chat_template, or choose an instruction-tuned model.",
            )
        return self._by_template(turn, tools)

    def neutralise(self, text: str) -> str:
        """Return the text with every control token it spells broken up by a space."""
        while self.control.search(text):
            text = self.control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text

    def _by_template(self, turn: Turn, tools: Sequence[Tool]) -> str:
        texts = [
            self.neutralise(part.text)
            for message in turn.messages
            for part in _joined(message)
            if isinstance(part, TextPart)
        ]
        safe_tools = [map_strings(tool, self.neutralise) for tool in tools]
        calls = [call for message in turn.messages for call in message.tool_calls]
        named = [self.neutralise(call.name) for call in calls]
        named += [str(_function(tool).get("name", "")) for tool in safe_tools]
        data = json.dumps([safe_tools, [call.arguments for call in calls]], default=str)
        problems: list[str] = []
        for form in _FORMS:
            messages = [self._message(message, form) for message in turn.messages]
            try:
                rendered = self._apply(messages, safe_tools)
            except (JinjaError, TypeError, ValueError, KeyError, AttributeError) as error:
                problems.append(str(error))
                continue
            problem = _leak(rendered, [*texts, data]) or _loss(rendered, texts, named)
            problem = problem or self._unseen(rendered, turn)
            if problem is None:
                return rendered
            problems.append(problem)
        raise TemplateError(
            f"The chat template refuses the conversation: {problems[0]}.", hint=_hint(problems)
        )

    def _apply(self, messages: list[dict[str, Any]], tools: list[Any]) -> str:
        template = self.template
        if isinstance(template, dict):
            template = template.get("tool_use" if tools else "default", template.get("default"))
        return str(
            self.processor.apply_chat_template(
                messages,
                chat_template=template,
                tools=tools or None,
                add_generation_prompt=True,
                tokenize=False,
            )
        )

    def _message(self, message: TurnMessage, form: Form) -> dict[str, Any]:
        parts = [
            {"type": "image"}
            if isinstance(part, ImagePart)
            else {"type": "text", "text": self.neutralise(part.text)}
            for part in _joined(message)
        ]
        said = message.role != "tool" and not message.tool_calls
        as_list = form == "lists" or (form == "mixed" and said)
        text = "".join(part.get("text", "") for part in parts)
        out: dict[str, Any] = {"role": message.role}
        out["content"] = parts if message.image_indices or (as_list and text) else text
        if message.tool_calls:
            out["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.id,
                    "function": {
                        "name": self.neutralise(call.name),
                        "arguments": map_strings(call.arguments, self.neutralise),
                    },
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            out["tool_call_id"] = message.tool_call_id
        if message.name is not None:
            out["name"] = self.neutralise(message.name)
        return out

    def _unseen(self, rendered: str, turn: Turn) -> str | None:
        images = sum(len(message.image_indices) for message in turn.messages)
        shown = _placeholders(self.processor, rendered)
        return None if shown == images else f"it shows {shown} of {images} images"

    def _plain(self, turn: Turn, tools: Sequence[Tool]) -> str:
        system = [m.text for m in turn.messages if m.role == "system"]
        others = {m.role for m in turn.messages} - {"system", "user"}
        if others or tools:
            raise TemplateError(
                f"Models of the family {self.family.name!r} answer single questions.",
                hint="Send one user message without history or tools, or use a chat model.",
            )
        text = self.neutralise("\n".join(part for part in (*system, turn.query) if part))
        return self.family.plain_image * sum(len(m.image_indices) for m in turn.messages) + text

    def _check_control(self, texts: Sequence[str]) -> None:
        # The tokenizer may normalise exotic characters into a control token after all.
        spelled = self.processor.tokenizer("\n".join(texts), add_special_tokens=False)["input_ids"]
        if hit := self.control_ids.intersection(spelled):
            names = self.processor.tokenizer.convert_ids_to_tokens(sorted(hit))
            raise TemplateError(
                f"Text of the conversation turns into control tokens {names}.",
                hint="Remove the look-alike characters from the message.",
            )


def control_tokens(processor: Any, template: str) -> set[str]:
    """Return the strings that steer a prompt: special tokens, media marks, the template's own."""
    tokenizer = processor.tokenizer
    tokens = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not token.content.isspace())
    }
    for name, value in vars(processor).items():
        if name.endswith(("_token", "_tag")) and value is not None:
            tokens.add(str(getattr(value, "content", value)))
    return {token for token in tokens if len(token.strip()) > 1}


def _leak(rendered: str, sources: Iterable[str]) -> str | None:
    """Say whether the template printed a content list as it is."""
    raw = [leak for leak in _LEAKS if leak in rendered]
    if raw and not any(leak in source for leak in raw for source in sources):
        return "it prints message parts instead of their text"
    return None


def _loss(rendered: str, texts: Iterable[str], names: Iterable[str]) -> str | None:
    """Say what of the conversation is missing in its prompt."""
    skeleton = _skeleton(rendered)
    for text in texts:
        # Templates leave out earlier reasoning on purpose.
        if _skeleton(text.rpartition("</think>")[2]) not in skeleton:
            return f"it drops the text {text[:40]!r}"
    for name in names:
        if _skeleton(name) not in skeleton:
            return f"it drops the tool {name!r}"
    return None


def _placeholders(processor: Any, rendered: str) -> int:
    marks = [getattr(processor, name, None) for name in ("boi_token", "image_token")]
    counts = [rendered.count(str(getattr(m, "content", m))) for m in marks if m is not None]
    return max(counts, default=0)


def _joined(message: TurnMessage) -> list[TextPart | ImagePart]:
    parts: list[TextPart | ImagePart] = []
    for part in message.parts:
        if isinstance(part, TextPart) and parts and isinstance(parts[-1], TextPart):
            parts[-1] = TextPart(parts[-1].text + part.text)
        else:
            parts.append(part)
    return parts


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON data with each of its strings changed, the keys of objects included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {map_strings(k, change): map_strings(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_strings(item, change) for item in value]
    return value


def _function(tool: Any) -> dict[str, Any]:
    found: dict[str, Any] = tool.get("function") or tool
    return found


def _skeleton(text: str) -> str:
    # Templates trim, escape and re-space text; its letters and digits stay.
    return _NOISE.sub("", text)


def _hint(problems: Sequence[str]) -> str:
    said = " ".join(problems).lower()
    if "system" in said:
        return "Fold the system text into the first user message."
    if "alternat" in said:
        return "Merge neighbouring messages of the same role; start with the user."
    if "images" in said:
        return "Put images into user messages; this template shows none elsewhere."
    if "drops the tool" in said:
        return "The template knows no tools: describe them in the system message instead."
    if "tool" in said:
        return "Send tool results as user messages; this template knows no such role."
    return "Compare the conversation with what the model's chat template accepts."
