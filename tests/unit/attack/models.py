"""A chat model that knows only how to answer whole, and notes what it was given."""

from __future__ import annotations

import time
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

SECRET = "SECRET ANSWER"


class Plain(BaseChatModel):
    """Answers with one message, after a while if asked to."""

    reply: Any = "ok"
    delay: float = 0
    _seen: list[tuple[list[BaseMessage], dict[str, Any]]] = PrivateAttr(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "plain"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._seen.append((messages, kwargs))
        time.sleep(self.delay)
        return ChatResult(generations=[ChatGeneration(message=self._message())])

    def _message(self) -> BaseMessage:
        if isinstance(self.reply, BaseMessage):
            return self.reply
        usage: Any = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
        return AIMessage(self.reply, usage_metadata=usage, response_metadata={"model_name": "p"})
