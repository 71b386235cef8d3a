"""`SafeCoDeCheck`: judge a conversation without generating anything, as a Runnable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.language_models.base import LanguageModelInput
from langchain_core.runnables import Runnable, RunnableConfig

from safecode_guard.errors import PolicyError
from safecode_guard.pipeline.examiner import Examiner, Sink
from safecode_guard.pipeline.factory import make_examiner
from safecode_guard.pipeline.host import EventLoop
from safecode_guard.policy import Policy
from safecode_guard.runnables.arguments import require_known
from safecode_guard.runnables.checking import CHECKED, Checking
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.settings import warn_of_unread
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.verdict import Verdict

if TYPE_CHECKING:
    from safecode_guard.runnables.vision_model import ChatVisionModel

_MADE_OF = frozenset({"model", "judge", "policy", "sinks", "workers"})


class SafeCoDeCheck(Checking, Runnable[LanguageModelInput, Verdict]):
    """Messages in, a `Verdict` out; for gates before something that cannot be steered.

    Example:
        >>> gate = SafeCoDeCheck(judge=my_judge) | route_by_action(routes)    # doctest: +SKIP
    """

    def __init__(
        self,
        model: ChatVisionModel | str | Path | None = None,
        *,
        judge: Any = None,
        policy: Policy | Mapping[str, Any] | str | None = None,
        sinks: Sequence[Sink] = (),
        workers: int = 4,
        **unknown: Any,
    ) -> None:
        """Make the check.

        Args:
            model: The model that judges, if the policy's judge is ``same_model``, or its name.
            judge: A judge of your own, or a LangChain chat model.
            policy: The policy in force, its plain data or the name of a preset; its actions
                become the verdict's.
            sinks: Who else is told every verdict, such as an `AuditLog`.
            workers: Threads in which pictures are read for async calls.
            **unknown: None; a misspelt argument is told.

        Raises:
            PolicyError: If policy and judge do not go together, or one of the arguments is none.
            UnknownArgument: For an argument that the check does not have.
        """
        require_known("SafeCoDeCheck", unknown, _MADE_OF)
        if policy is None:
            warn_of_unread("SafeCoDeCheck", meant="policy=SafeCoDeSettings().policy()")
        if isinstance(model, str | Path):
            model = ChatTransformers.named(model)
        _require_kinds(model, sinks, workers)
        engine = model.engine if model is not None and judge is None else None
        self.policy = Policy() if policy is None else Policy.of(policy)
        self._examiner = make_examiner(
            self.policy,
            engine=engine,
            judge=judge,
            steers=self.policy.mode == "guard",
            sinks=tuple(sinks),
        )
        self._pictures = PictureStore(self.policy.images.cache_bytes)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="safecode-check")

    @property
    def examiner(self) -> Examiner:
        """What routes, judges and concludes."""
        return self._examiner

    def _host(self, call: Any = None) -> EventLoop:
        return EventLoop(self._workers)

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """Judge a conversation; the verdict is also sent as an event on this run.

        Raises:
            UnknownArgument: For an argument that `check` does not have.
        """
        require_known("A check", kwargs, CHECKED)
        return self._call_with_config(partial(self.check, **kwargs), input, config)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Verdict:
        """Judge a conversation without blocking the event loop."""
        require_known("A check", kwargs, CHECKED)
        return await self._acall_with_config(partial(self.acheck, **kwargs), input, config)


def _require_kinds(model: Any, sinks: Any, workers: Any) -> None:
    if model is not None and not hasattr(model, "engine"):
        raise PolicyError(
            f"{type(model).__name__!r} is no model that can judge.",
            hint="Pass a ChatTransformers, or a judge.",
        )
    if not isinstance(sinks, list | tuple) or not all(map(callable, sinks)):
        raise PolicyError("sinks is no list of functions.", hint="Pass sinks=[AuditLog(...)].")
    if not isinstance(workers, int) or workers < 1:
        raise PolicyError(f"workers cannot be {workers!r}.", hint="Give a number above 0.")
