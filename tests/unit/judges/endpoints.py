"""What an OpenAI-compatible endpoint may answer, and a judge that asks it."""

from __future__ import annotations

import math
from typing import Any

import httpx

from safecode_guard.judges.http import HttpJudge
from safecode_guard.policy import HttpJudgeConfig

URL = "http://judge.test/v1"
PATH = f"{URL}/chat/completions"
KEY = "sk-not-to-be-seen"

QUICK = {"timeout_s": 2.0, "read_timeout_s": 1.0, "connect_timeout_s": 1.0, "retries": 0}


def config(**fields: Any) -> HttpJudgeConfig:
    return HttpJudgeConfig(**{"url": URL, "model": "m", **QUICK, **fields})


def judge(**fields: Any) -> HttpJudge:
    return HttpJudge(config(**fields))


def top(*tokens: tuple[str, Any]) -> dict[str, Any]:
    """A completion of one token, with these as the likeliest."""
    listed = [{"token": token, "logprob": value} for token, value in tokens]
    first = {"token": tokens[0][0], "logprob": tokens[0][1], "top_logprobs": listed}
    text = {"role": "assistant", "content": tokens[0][0]}
    choice = {"index": 0, "message": text, "finish_reason": "length"}
    return {"choices": [choice | {"logprobs": {"content": [first]}}]}


def scores(p_unsafe: float, *, mass: float = 1.0) -> dict[str, Any]:
    """A completion that gives the labels these probabilities."""
    unsafe, safe = math.log(p_unsafe * mass), math.log((1 - p_unsafe) * mass)
    return top(("unsafe", unsafe), ("safe", safe), ("the", math.log(max(1 - mass, 1e-9))))


def text(content: str | None, *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A completion of a text, without any probabilities."""
    told = {"role": "assistant", "content": content, **message}
    return {"choices": [{"index": 0, "message": told, "finish_reason": finish}]}


def answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers)
