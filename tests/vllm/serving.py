"""Starts a vLLM server on the embedded model, and ends it by its process id."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from safetensors.torch import load_file, save_file

from safecode_guard.tiny.load import weights_path

NAME: Final = "tiny"
START_S: Final = 300
ROOT: Final = Path(__file__).parents[2]
PROCESSOR: Final = ("--logits-processors", "safecode_guard_vllm.v1:SafeCoDe")
ASYNC: Final = ("--scheduler-cls", "safecode_guard_vllm.scheduler.AsyncPairScheduler")
SYNC: Final = (
    *("--scheduler-cls", "safecode_guard_vllm.scheduler.PairScheduler"),
    "--no-async-scheduling",
)
SCALE_OUT: Final = ("--enable-scale-out",)

_CUDA_BUILD: Final = """\
# torchvision's published build is CUDA's: define the operators that its import asks for
import importlib.abc
import sys


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            try:
                torch.ops.torchvision.nms
            except Exception:
                sys.operators = torch.library.Library("torchvision", "DEF")
                for each in ("nms", "qnms"):
                    form = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    sys.operators.define(each + form)
        return None


sys.meta_path.insert(0, Finder())
"""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, its engine included."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def steps(self) -> int:
        """Return how many steps its engine has made."""
        text = httpx.get(f"{self.url}/metrics", trust_env=False).text
        found = re.search(r"^vllm:iteration_tokens_total_count\S* (\S+)", text, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))


def served_files(folder: Path) -> Path:
    """Write the embedded model as vLLM's own LLaVA class reads it, and return its directory."""
    made = folder / "model"
    shutil.copytree(weights_path("chat"), made)
    weights = load_file(made / "model.safetensors")
    inner = re.compile(r"vision_tower\.(?!vision_model)")
    named = {inner.sub("vision_tower.vision_model.", key): w for key, w in weights.items()}
    save_file(named, made / "model.safetensors", metadata={"format": "pt"})
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(_CUDA_BUILD, encoding="utf-8")
    return made


@contextmanager
def serving(python: str, folder: Path, flags: Sequence[str]) -> Iterator[Server]:
    """Run a server until the block ends; ``folder`` has what `served_files` wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / f"server-{port}.log"
    command = [
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(folder / "model"), "--served-model-name", NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--max-model-len", "512", "--enforce-eager"),
        *("--limit-mm-per-prompt", '{"image": 2}', "--block-size", "32"),
        *flags,
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=_environment(folder), start_new_session=True
        )
    server = Server(url, log, process)
    try:
        _wait(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


def _environment(folder: Path) -> dict[str, str]:
    paths = [folder / "site", ROOT, ROOT / "integrations" / "vllm"]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def _wait(server: Server) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(f"{server.url}/health", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    end = server.log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise RuntimeError(f"the server did not start within {START_S} s:\n{end}")
