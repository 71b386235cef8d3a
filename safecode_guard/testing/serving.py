"""Starts an ASGI app on this machine's loopback, beside the program that uses it.

As a program it serves an embedded model, or one in a directory, until it is interrupted::

    python -m safecode_guard.testing.serving light --port 8000
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any, Final

_LOOPBACK: Final = "127.0.0.1"
_START_S: Final = 10.0


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app on a free port of the loopback, and yield where: ``http://127.0.0.1:49152``.

    Needs the extra ``serve``.

    Raises:
        TimeoutError: If it does not start.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server((_LOOPBACK, 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait_for(server)
            yield f"http://{_LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _wait_for(server: Any) -> None:
    end = time.monotonic() + _START_S
    while not server.started:
        if time.monotonic() > end:
            raise TimeoutError("The server did not start.")
        time.sleep(0.005)


def main() -> None:
    """Serve a model until interrupted."""
    parser = argparse.ArgumentParser(description="Serve a model as an OpenAI-compatible judge.")
    parser.add_argument("model", nargs="?", default="light", help="light, nano, or a directory")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    import uvicorn

    from safecode_guard.engines.transformers.model import TransformersModel
    from safecode_guard.judges.folders import folder_of
    from safecode_guard.testing.endpoint import ModelEndpoint

    model = TransformersModel.load(folder_of(given.model), local_files_only=True)
    uvicorn.run(ModelEndpoint(model, name=given.model).app(), host=_LOOPBACK, port=given.port)


if __name__ == "__main__":
    main()
