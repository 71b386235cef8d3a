"""Messages made again from a `Turn`, for models that are handed messages and not turns.

Nothing reaches such a model that was not read: text and the very bytes that were hashed, in one
form whatever form they came in, so that no other reading of them is left; and the state that its
provider needs back, which was proven to hold no media when the messages were read.
"""

from __future__ import annotations

from base64 import b64encode
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from safecode_guard.turns.drafts import COMPUTER_OUTPUT
from safecode_guard.turns.images import CheckedImage, to_png
from safecode_guard.turns.turn import Carried, Part, TextPart, Turn, TurnMessage

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

Block = dict[str, Any]

_BLANK_SIDE: Final = 64


def rebuild(turn: Turn) -> list[BaseMessage]:
    """Return a conversation as LangChain messages.

    Each picture is a v1 image block with its own bytes, or with a PNG of the judged pixels where
    its bytes could be read in another way; ``SubjectImage.shown_sha256`` then names that PNG.
    Artifacts and response metadata stay behind.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> from safecode_guard.turns.reading import read_turn
        >>> rebuild(read_turn([HumanMessage("Hello")]))[0].content
        'Hello'
    """
    return [_message(message, turn) for message in turn.messages]


def _message(message: TurnMessage, turn: Turn) -> BaseMessage:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    state = message.state
    fields: Block = {
        "content": _content(message, turn),
        "additional_kwargs": deepcopy(dict(state.kwargs)),
        "name": message.name,
        "id": state.id,
    }
    if message.role == "tool":
        return _tool_message(message, fields)
    if message.role == "user":
        return HumanMessage(**fields)
    if message.role == "system":
        return SystemMessage(**fields)
    calls = [
        {"type": "tool_call", "id": call.id, "name": call.name, "args": deepcopy(call.arguments)}
        for call in message.tool_calls
    ]
    return AIMessage(**fields, tool_calls=calls, response_metadata=dict(state.metadata))


def _tool_message(message: TurnMessage, fields: Block) -> BaseMessage:
    from langchain_core.messages import ChatMessage, FunctionMessage, ToolMessage

    if message.tool_call_id is not None:
        status = "error" if message.state.failed else "success"
        return ToolMessage(**fields, tool_call_id=message.tool_call_id, status=status)
    return FunctionMessage(**fields) if message.name else ChatMessage(**fields, role="tool")


def _content(message: TurnMessage, turn: Turn) -> str | list[str | Block]:
    state = message.state
    if message.role == "tool" and state.kwargs.get("type") == COMPUTER_OUTPUT:
        return _screenshot(message, turn)
    if state.plain and not (message.image_indices or state.carried):
        return message.text
    return list(_blocks(message, turn)) or ""


def _blocks(message: TurnMessage, turn: Turn) -> list[Block]:
    """Return the parts as blocks, with the carried ones in their places."""
    waiting = list(message.state.carried)
    blocks: list[Block] = []
    place = 0
    while place < len(message.parts) or waiting:
        if waiting and (waiting[0].at <= place or place == len(message.parts)):
            carried: Carried = waiting.pop(0)
            blocks.append(deepcopy(dict(carried.block)))
            place += carried.covers
        else:
            blocks.append(_block(message.parts[place], turn))
            place += 1
    return blocks


def _block(part: Part, turn: Turn) -> Block:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    data, mime = turn.images[part.index].file
    return {"type": "image", "base64": b64encode(data).decode(), "mime_type": mime}


def _screenshot(message: TurnMessage, turn: Turn) -> str | list[str | Block]:
    """Return a computer's output in the form that OpenAI's client wants: the URL of one image.

    An image that is left out is a blank one there, for the provider refuses an output without.
    """
    urls = [_data_url(turn.images[index]) for index in message.image_indices] or [_blank()]
    if message.state.plain and len(urls) == 1:
        return urls[0]
    texts = [part for part in message.parts if isinstance(part, TextPart)]
    said: list[str | Block] = [_block(part, turn) for part in texts]
    return said + [{"type": "input_image", "image_url": url} for url in urls]


def _data_url(image: CheckedImage) -> str:
    data, mime = image.file
    return f"data:{mime};base64,{b64encode(data).decode()}"


def _blank() -> str:
    data = to_png(Image.new("RGB", (_BLANK_SIDE, _BLANK_SIDE), "grey"))
    return f"data:image/png;base64,{b64encode(data).decode()}"
