"""Conversations as turns: read from messages, with every image checked."""

from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage

__all__ = ["ImagePart", "TextPart", "ToolCall", "Turn", "TurnMessage", "read_turn"]
