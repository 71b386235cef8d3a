"""``safecode-guard serve``: an OpenAI-compatible server in front of a guarded model."""

from __future__ import annotations

import logging
import os
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from safecode_guard.cli import screen
from safecode_guard.cli.opening import open_model, open_policy
from safecode_guard.cli.options import Device, Judge, Model, PolicyFile, Preset
from safecode_guard.errors import PolicyError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from safecode_guard.policy import Policy
    from safecode_guard.runnables.guard import SafeCoDeGuard

_INSTALL: Final = "pip install 'safecode-guard[serve]'"


def serve(
    model: Model = None,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL#MODEL",
            help="Serve a model behind another server, judged and not steered: "
            "http://host:8000/v1#model.",
        ),
    ] = None,
    vllm: Annotated[
        str | None,
        typer.Option(
            metavar="URL#MODEL",
            help="Serve a model of a vLLM server, steered there; its tokenizer is read from -m, or "
            "by its name: http://host:8000/v1#model.",
        ),
    ] = None,
    judge: Judge = None,
    policy: PolicyFile = None,
    preset: Preset = None,
    device: Device = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8080,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Keys of callers, a line `name: key` each.",
        ),
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Let everyone in, from other machines too.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Under which clients ask for the model.")] = None,
    audit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write every verdict to this log."),
    ] = None,
    per_key: Annotated[
        int, typer.Option(min=1, help="Requests of one key at a time; more are told to wait.")
    ] = 16,
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, help="Megabytes of one request.")] = 32,
    drain: Annotated[
        int, typer.Option(min=0, help="Seconds that answers under way have to end at a stop.")
    ] = 30,
) -> None:
    """Serve a guarded model to every OpenAI client."""
    _require_server()
    if keys is None and not no_keys and not _is_loopback(host):
        raise PolicyError(
            f"Without keys everyone who reaches {host} could use the model.",
            hint="Give --keys FILE, listen on 127.0.0.1, or say --no-keys.",
        )
    from safecode_guard.server import ServerConfig, make_app, read_keys

    config = ServerConfig(
        keys=read_keys(keys) if keys else {},
        max_request_bytes=max_mb * 1_000_000,
        per_key=per_key,
    )
    rules = open_policy(policy, preset=preset, judge=judge)
    chat: BaseChatModel
    if upstream is not None and vllm is not None:
        raise PolicyError("A server has one model behind it.", hint="Give --upstream or --vllm.")
    if vllm is not None:
        chat, given = _on_vllm(vllm, files=model)
    elif upstream is None:
        chat = open_model(model, device=device)
        given = Path(model).name if model else "tiny"
    else:
        chat, given = _upstream(upstream)
        rules = _called(rules, upstream, judge=judge)
    guard = _guard(chat, rules, audit)
    app = make_app(guard, name or given, config)
    screen.err.print(f"Serving {name or given} on http://{host}:{port}/v1 (Ctrl-C ends it)")
    _run(app, host=host, port=port, drain=drain)


def _guard(chat: BaseChatModel, rules: Policy, audit: Path | None) -> SafeCoDeGuard:
    from safecode_guard.audit import AuditLog
    from safecode_guard.runnables.guard import SafeCoDeGuard

    sinks = (AuditLog(audit),) if audit else ()
    with screen.working("Making the guard ..."):
        guard = SafeCoDeGuard(model=chat, policy=rules, sinks=sinks)
        _ = guard.examiner  # what cannot be loaded is told now, and not at the first request
    return guard


def _on_vllm(address: str, *, files: str | None) -> tuple[BaseChatModel, str]:
    """Return the chat model of a vLLM server, and its name; the server has proven that it steers.

    Raises:
        SteeringUnproven: If it does not steer.
        ModelUnavailable: If it cannot be reached.
    """
    from safecode_guard.judges.names import address_of
    from safecode_guard.runnables.vllm import ChatVLLM

    url, name = address_of(address)
    key = os.environ.get("OPENAI_API_KEY") or None
    chat = ChatVLLM(base_url=url, model_name=name, files=files, api_key=key)
    with screen.working("Asking the server for a proof that it steers ..."):
        chat.probe()
    return chat, name


def _upstream(given: str) -> tuple[BaseChatModel, str]:
    """Return the chat model behind a server, and its name."""
    from safecode_guard.judges.names import address_of

    url, name = address_of(given)
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise PolicyError(
            "--upstream needs langchain-openai.", hint="pip install 'safecode-guard[upstream]'"
        ) from error
    return ChatOpenAI(base_url=url, model=name, api_key=_key_of_environment()), name


def _key_of_environment() -> Any:
    return os.environ.get("OPENAI_API_KEY") or "none"


def _called(rules: Policy, upstream: str, *, judge: str | None) -> Policy:
    """Return the policy for a model that is only called: it is judged by itself, or by another."""
    from safecode_guard.judges.names import values_of

    if judge is None and rules.judge.kind == "same_model":
        return rules.updated(mode="judge_only", judge=values_of(f"openai:{upstream}"))
    return rules.updated(mode="judge_only")


def _run(app: Any, *, host: str, port: int, drain: int) -> None:
    import uvicorn

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("safecode_guard.server").setLevel(logging.INFO)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=drain,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_server() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise PolicyError("The server's packages are missing.", hint=_INSTALL) from error
