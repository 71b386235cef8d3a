import io
from base64 import b64encode

from safecode_guard.turns.turn import TextPart


def rebuild(turn):
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    out = []
    for m in turn.messages:
        content = []
        for p in m.parts:
            if isinstance(p, TextPart):
                content.append({"type": "text", "text": p.text})
            else:
                b = io.BytesIO()
                turn.images[p.index].pixels.save(b, "PNG")
                content.append(
                    {
                        "type": "image",
                        "base64": b64encode(b.getvalue()).decode(),
                        "mime_type": "image/png",
                    }
                )
        if len(content) == 1 and content[0]["type"] == "text":
            content = content[0]["text"]
        calls = [{"name": c.name, "args": c.arguments, "id": c.id} for c in m.tool_calls]
        out.append(
            {
                "user": lambda: HumanMessage(content),
                "system": lambda: SystemMessage(content),
                "assistant": lambda: AIMessage(content, tool_calls=calls),
                "tool": lambda: ToolMessage(content, tool_call_id=m.tool_call_id),
            }[m.role]()
        )
    return out
