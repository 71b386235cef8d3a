"""From what was typed to a model, a policy and messages."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.cli import screen
from safecode_guard.engines.presence import require_device, require_model_at
from safecode_guard.errors import ImageError, ModelError, UnreadableCall, UnreadableImage
from safecode_guard.judges.names import require_model, values_of
from safecode_guard.policy import LocalJudgeConfig, Policy
from safecode_guard.settings import SafeCoDeSettings

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from safecode_guard.runnables.transformers import ChatTransformers
    from safecode_guard.verdict import Verdict

_CALL: Final = 'Type it like \'{"name": "walk", "args": {"to": "edge"}}\'.'


def open_model(
    name: str | None, *, device: str | None = None, max_tokens: int | None = None
) -> ChatTransformers:
    """Return a chat model with its weights loaded; shows a spinner meanwhile.

    Args:
        name: Directory or hub name; None for the embedded tiny model.
        device: Where to load it.
        max_tokens: Longest answer; None for the model's default.

    Raises:
        ModelError: If there is no such model, or it cannot be loaded here.
    """
    require_device(device)
    if name is not None:
        require_model_at(name)
    with screen.working(f"Loading {name or 'the embedded tiny model'} ..."):
        from transformers.utils.logging import disable_progress_bar

        from safecode_guard.runnables.transformers import ChatTransformers

        disable_progress_bar()  # the spinner is ours, and two of them fight over the line
        given = {"device": device, "max_tokens": max_tokens}
        fields = {key: value for key, value in given.items() if value is not None}
        if name is None:
            import torch

            torch.set_num_threads(1)  # so small a model only gets slower with more
            model = ChatTransformers.tiny(**fields)
        else:
            model = ChatTransformers.from_pretrained(name, **fields)
        try:
            _ = model.engine
        except (OSError, ValueError) as error:
            raise ModelError(
                f"Cannot load the model {name!r}: {str(error).strip().splitlines()[0]}",
                hint="Name a directory with a model in it, or a hub name; offline, a cached one.",
            ) from error
    return model


def require_picture(path: Path) -> None:
    """Refuse a file that is no picture, in words about the file.

    Raises:
        UnreadableImage: If Pillow cannot read it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.verify()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise UnreadableImage(
            f"{path.name!r} is no picture that can be read.", hint="Name a PNG or JPEG, say."
        ) from None


def open_policy(
    file: Path | None = None, *, preset: str | None = None, judge: str | None = None
) -> Policy:
    """Return the policy of a file, the environment and options; warnings go to stderr.

    Raises:
        PolicyError: If it is missing, empty or invalid, or there is no such judge.
    """
    values: dict[str, Any] = {}
    if preset is not None:
        values["preset"] = preset
    if judge is not None:
        values["judge"] = values_of(judge)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        policy = SafeCoDeSettings(policy_file=file, **values).policy()
        if judge is not None and isinstance(policy.judge, LocalJudgeConfig):
            require_model(policy.judge)
    for warning in caught:
        screen.err.print(f"[yellow]Warning:[/] {screen.printable(str(warning.message))}")
    return policy


def tool_call_of(text: str) -> dict[str, Any]:
    """Return a tool call that was typed as JSON.

    Raises:
        UnreadableCall: If it is no JSON object; its name and arguments are read later.
    """
    try:
        call = json.loads(text)
    except ValueError as error:
        raise UnreadableCall(f"The tool call is no JSON: {error}.", hint=_CALL) from error
    if not isinstance(call, dict):
        raise UnreadableCall("The tool call is no JSON object.", hint=_CALL)
    return call


def messages_of(pictures: Sequence[Path], question: str) -> list[BaseMessage]:
    """Return the conversation of some picture files and one question."""
    blocks = [
        _block(path.read_bytes(), mimetypes.guess_type(path.name)[0] or "image/png")
        for path in pictures
    ]
    return _conversation(blocks, question)


def image_messages(data: bytes, question: str, *, mime: str = "image/png") -> list[BaseMessage]:
    """Return the conversation of one encoded picture and one question."""
    return _conversation([_block(data, mime)], question)


def _conversation(blocks: list[dict[str, str]], question: str) -> list[BaseMessage]:
    from langchain_core.messages import HumanMessage

    return [HumanMessage([*blocks, {"type": "text", "text": question}])]


def _block(data: bytes, mime: str) -> dict[str, str]:
    return {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": mime}


@contextmanager
def named(pictures: Sequence[Path]) -> Iterator[None]:
    """Say of an error about a picture which file it is about."""
    try:
        yield
    except ImageError as error:
        if error.block_index is not None and error.block_index < len(pictures):
            error.what = f"{pictures[error.block_index].name!r}: {error.what}"
        raise


def animations(pictures: Sequence[Path], verdict: Verdict) -> list[str]:
    """Return a line on each animated file: how many of its frames were judged."""
    from PIL import Image, UnidentifiedImageError

    lines = []
    for path in dict.fromkeys(pictures):
        try:
            with Image.open(path) as image:
                count = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            continue  # not judged, as the verdict says
        if count > 1:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            judged = sum(image.sha256 == sha256 for image in verdict.images) // pictures.count(path)
            lines.append(f"{path.name}: {judged} of {count} frames were judged")
    return lines
