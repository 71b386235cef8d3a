"""Conversations as turns: read from messages, with every image checked, and made again."""

from safecode_guard.turns.reading import read_turn
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage

__all__ = ["ImagePart", "TextPart", "ToolCall", "Turn", "TurnMessage", "read_turn"]
