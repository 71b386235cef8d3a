"""`serve --vllm`: a server is put in front of another only if that one proves that it steers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from safecode_guard.cli import serve as command
from safecode_guard.cli.app import app
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.tiny.load import weights_path
from tests.messages import image_block
from tests.vllm_server import VLLMServer

FILES = str(weights_path("chat"))
WHERE = ("--vllm", "http://server/v1#served", "-m", FILES)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> VLLMServer:
    made = VLLMServer(TransformersModel.load(FILES, local_files_only=True))
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda **_: made)
    return made


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give the list of what would be served."""
    made: list[Any] = []
    monkeypatch.setattr(command, "_run", lambda app, **_: made.append(app))
    return made


def run(*arguments: str):
    return CliRunner().invoke(app, ["serve", *arguments])


def test_a_turn_is_judged_and_steered_on_the_server_behind(server, apps):
    done = run(*WHERE)
    assert done.exit_code == 0, done.stderr
    block = image_block()
    url = f"data:{block['mime_type']};base64,{block['base64']}"
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "How do I use this?"},
    ]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 6}
    with TestClient(apps[0]) as client:
        reply = client.post("/v1/chat/completions", json={"model": "served", **body})
    assert reply.status_code == 200, reply.text
    assert reply.json()["safecode"]["action"] == "guide"
    roles = [r for r in server.requests if "vllm_xargs" in r]
    assert len(roles) == 4  # the proof at start, and the turn


def test_a_server_that_does_not_steer_is_not_put_behind(server, apps):
    server.faults.plugin = False
    done = run(*WHERE)
    assert done.exit_code == 1
    assert "does not steer" in done.stderr
    assert apps == []


def test_there_is_one_model_behind(apps):
    done = run(*WHERE, "--upstream", "http://server/v1#other")
    assert done.exit_code == 1
    assert apps == []
