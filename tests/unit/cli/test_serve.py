from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from safecode_guard.audit import entries
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.testing import ModelEndpoint, serving
from safecode_guard.tiny.load import weights_path
from tests.messages import QUERY, png

COMMAND = (sys.executable, "-m", "safecode_guard", "serve")
KEY = "a-key-of-some-length"


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SAFECODE_")}
    return kept | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class Server:
    """A server in a process of its own, until it is told to end."""

    def __init__(self, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        self.process = subprocess.Popen(
            [*COMMAND, "--port", port, *arguments],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 60
        while not self._is_up():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.1)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, **more: object) -> httpx.Response:
        url = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
        blocks = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": QUERY}]
        asked = {"messages": [{"role": "user", "content": blocks}], "max_tokens": 8, **more}
        headers = {"authorization": f"Bearer {KEY}"}
        return httpx.post(
            f"{self.url}/v1/chat/completions", json=asked, headers=headers, timeout=60
        )

    def end(self, signal_: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(signal_)
        _, told = self.process.communicate(timeout=30)
        return self.process.returncode, told


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    model = TransformersModel.load(weights_path("chat"))
    with serving(ModelEndpoint(model, name="chat").app()) as url:
        yield f"{url}/v1#chat"


def test_the_embedded_model_is_served_until_ctrl_c(tmp_path: Path) -> None:
    keys, log = tmp_path / "keys", tmp_path / "audit.jsonl"
    keys.write_text(f"ann: {KEY}\n")
    server = Server("--keys", str(keys), "--audit", str(log))
    given = server.ask(model="tiny")
    assert given.status_code == 200
    assert given.json()["safecode"]["verdicts"][0]["judge"]["id"]
    assert httpx.post(f"{server.url}/v1/chat/completions", json={}).status_code == 401
    _, told = server.end(signal.SIGINT)
    assert "Traceback" not in told
    assert '"key": "ann"' in told
    assert QUERY not in told
    assert len({entry.verdict.id for entry in entries(log) if entry.verdict}) == 1


@pytest.mark.parametrize(("judge", "kind"), [((), "http:"), (("-j", "light"), "")])
def test_another_server_is_guarded(judge: tuple[str, ...], kind: str, upstream: str) -> None:
    server = Server("--upstream", upstream, "--name", "mine", *judge)
    given = server.ask(model="mine")
    assert given.status_code == 200, given.text
    (verdict,) = given.json()["safecode"]["verdicts"]
    assert kind in verdict["judge"]["id"]
    assert verdict["decoding"] is None
    assert given.json()["choices"][0]["message"]["content"]
    server.end(signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--host", "0.0.0.0"), "Without keys everyone"),
        (("--keys", "nowhere.txt"), "Cannot read the keys"),
        (("--upstream", "http://127.0.0.1:1/v1"), "names no endpoint or no model"),
        (("-j", "lihgt"), "light"),
        (("-m", "nowhere"), "nowhere"),
        (("--preset", "strickt"), "'strict'"),
    ],
)
def test_what_is_wrong_is_told_at_the_start(arguments: tuple[str, ...], told: str) -> None:
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == (2 if arguments[0] == "--preset" else 1)
    assert told in done.stderr
    assert "Traceback" not in done.stderr
