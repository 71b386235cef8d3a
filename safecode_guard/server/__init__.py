"""An OpenAI-compatible server in front of a guarded model (needs the extra ``serve``)."""

from safecode_guard.server.app import make_app
from safecode_guard.server.config import ServerConfig, read_keys

__all__ = ["ServerConfig", "make_app", "read_keys"]
