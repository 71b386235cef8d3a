"""Prototypes of refusal: the mean logits of a model's first tokens where it refuses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from safecode_guard.errors import PolicyError
from safecode_guard.risk.prompts import VERSION

if TYPE_CHECKING:
    from torch import Tensor

GAMMA: Final = 0.3
TOKENS: Final = 3
"""First tokens that are looked at, and steered."""
_MAKE: Final = "Make them with `safecode-guard ras fit`."
_SCHEMA: Final = "1"


@dataclass(frozen=True)
class Fitted:
    """The numbers that go with the prototypes, and what they were fitted on."""

    engine_id: str
    """The model's; what stands behind the @ is a digest of its weights."""
    s0: float
    """Mean similarity over unsafe and safe turns, as many of each: the certainty there is 0.5."""
    k: float
    """How steeply the certainty grows."""
    gamma: float = GAMMA
    cap: float | None = None
    """Of the model's head, where it caps its logits."""
    prompts: str = VERSION
    """Version of the wording that the model was asked in."""
    refused: int = 0
    """Answers that the prototypes are the mean of."""
    examples: int = 0
    """Turns that s0 is the mean of."""
    data: str = ""


@dataclass(frozen=True, eq=False)
class Prototypes:
    """The logits of refusals' mean states, ``W mu_t``, and when a turn counts as near to them.

    Example:
        >>> Prototypes.read(Path("ras.safetensors")).fitted.s0          # doctest: +SKIP
        0.71
    """

    logits: Tensor
    """float32 [tokens, vocabulary]."""
    fitted: Fitted

    @property
    def id(self) -> str:
        """A digest of all of it."""
        digest = hashlib.sha256(self.logits.contiguous().numpy().tobytes())
        digest.update(json.dumps(asdict(self.fitted), sort_keys=True).encode())
        return digest.hexdigest()[:12]

    def check(self, engine_id: str) -> None:
        """Refuse another model than the one whose refusals these are.

        Raises:
            PolicyError: If the weights differ, or the wording has changed since.
        """
        if _weights(engine_id) != _weights(self.fitted.engine_id):
            raise PolicyError(
                f"The prototypes are of the model {self.fitted.engine_id!r}, not of {engine_id!r}.",
                hint=_MAKE,
            )
        if self.fitted.prompts != VERSION:
            raise PolicyError(
                "The prototypes were made with another wording of the questions.", hint=_MAKE
            )

    def write(self, path: Path) -> None:
        """Write the prototypes as a safetensors file, numbers in its header."""
        from safetensors.torch import save_file

        values = json.dumps(asdict(self.fitted), sort_keys=True)
        save_file(
            {"logits": self.logits.contiguous()},
            path,
            metadata={"schema": _SCHEMA, "ras": values},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read prototypes from their file.

        Raises:
            PolicyError: If the file is not there, or holds none.
        """
        try:
            logits, fitted = _parts(path)
        except OSError as error:
            raise PolicyError(
                f"The prototypes {str(path)!r} cannot be read.", hint=_MAKE
            ) from error
        except Exception as error:  # of safetensors, which has an error of its own, and of JSON
            raise PolicyError(f"{str(path)!r} holds no prototypes.", hint=_MAKE) from error
        return cls(logits, fitted)


def _parts(path: Path) -> tuple[Tensor, Fitted]:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = file.metadata() or {}
        logits: Tensor = file.get_tensor("logits")
    fitted = Fitted(**json.loads(metadata["ras"]))
    numbers = torch.tensor([fitted.s0, fitted.k, fitted.gamma, fitted.cap or 0.0])
    sound = metadata["schema"] == _SCHEMA and logits.dtype == torch.float32 and logits.ndim == 2
    if not sound or bool(logits.isnan().any()) or not bool(numbers.isfinite().all()):
        raise ValueError("no prototypes")
    return logits, fitted


def _weights(engine_id: str) -> str:
    return engine_id.rpartition("@")[2]
