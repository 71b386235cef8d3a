"""What five real provider packages would send, and every picture in it. No network."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from langchain_core.messages import BaseMessage

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P6")
_DATA_URL = re.compile(r"data:image/[^,\s]*,([A-Za-z0-9+/=_-]{40,})")
_REMOTE = ("http://", "https://", "file://", "gs://", "s3://")
_SOURCE_KEYS = {"url", "image_url", "file_uri", "fileUri", "file_id", "uri", "file_data"}


def openai(messages: list[BaseMessage]) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-x", api_key="x")._get_request_payload(messages)


def openai_responses(messages: list[BaseMessage]) -> Any:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="gpt-x", api_key="x", use_responses_api=True)
    return model._get_request_payload(messages)


def anthropic(messages: list[BaseMessage]) -> Any:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model="claude-x", api_key="x")._get_request_payload(messages)


def google(messages: list[BaseMessage]) -> Any:
    from langchain_google_genai.chat_models import _parse_chat_history

    system, history = _parse_chat_history(messages, model="gemini-x")
    return [system, history]


def bedrock(messages: list[BaseMessage]) -> Any:
    from langchain_aws.chat_models.bedrock_converse import _messages_to_bedrock

    return _messages_to_bedrock(messages)


def ollama(messages: list[BaseMessage]) -> Any:
    from langchain_ollama import ChatOllama

    return ChatOllama(model="llava")._convert_messages_to_ollama_messages(messages)


PROVIDERS = [openai, openai_responses, anthropic, google, bedrock, ollama]


def pictures(payload: Any, key: str = "") -> Iterator[bytes]:
    """Yield every picture in a payload, wherever and however it is written."""
    if hasattr(payload, "model_dump"):
        payload = payload.model_dump()
    if isinstance(payload, bytes | bytearray):
        if bytes(payload).startswith(_SIGNATURES):
            yield bytes(payload)
    elif isinstance(payload, dict):
        for name, value in payload.items():
            yield from pictures(value, str(name))
    elif isinstance(payload, list | tuple):
        for value in payload:
            yield from pictures(value, key)
    elif isinstance(payload, str):
        yield from _in_text(payload)


def _in_text(text: str) -> Iterator[bytes]:
    """Yield the pictures of a text; one that is a URL as a whole is decoded as leniently as can be.

    Elsewhere a URL ends where its letters end: no model reads on behind a space.
    """
    whole = text.startswith("data:")
    found = [text.partition(",")[2]] if whole else _DATA_URL.findall(text)
    if len(text) > 40 and not whole:
        found.append(text)
    for one in found:
        if (data := _lenient(one)).startswith(_SIGNATURES):
            yield data


def _lenient(text: str) -> bytes:
    """Decode base64 as careless packages do: what is not of the alphabet is dropped."""
    text = re.sub(r"[^A-Za-z0-9+/]", "", text)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""


def remote(payload: Any, key: str = "") -> Iterator[str]:
    """Yield every source that the provider would fetch for itself."""
    if hasattr(payload, "model_dump"):
        payload = payload.model_dump()
    if isinstance(payload, dict):
        for name, value in payload.items():
            yield from remote(value, str(name))
    elif isinstance(payload, list | tuple):
        for value in payload:
            yield from remote(value, key)
    elif isinstance(payload, str) and payload:
        named = key in ("file_id", "fileUri", "file_uri")
        if named or (key in _SOURCE_KEYS and payload.startswith(_REMOTE)):
            yield payload
