"""Another local model as the judge, loaded when it is first asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.folders import family_in, folder_of, identity_of
from safecode_guard.judges.label_logits import LabelLogitsJudge, version_of
from safecode_guard.judges.prompts import prompt_for
from safecode_guard.judges.protocol import BaseJudge, JudgeAbilities, JudgeRequest
from safecode_guard.judges.scope import Scope
from safecode_guard.models.protocol import Engine
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.verdict import Judgement

UNREAD: Final = "unread"
"""Prompt version of a model whose own question is not known before it is loaded."""

Loader = Callable[[LocalJudgeConfig], Engine]
"""Loads the model that a configuration names."""


class LocalJudge(BaseJudge):
    """A `LabelLogitsJudge` over a model of its own; construction loads nothing.

    The guarded turn's open prompt is of no use to it. Which question the model is asked, and so
    the ``prompt_version``, is read from its directory; of a hub's model it is known once loaded.

    Example:
        >>> config = LocalJudgeConfig(model="models/judge")
        >>> LocalJudge(config, load=load).id                         # doctest: +SKIP
        'local:judge@5b0e1c9a7f31'
    """

    def __init__(
        self, config: LocalJudgeConfig, *, load: Loader, scope: Scope | None = None
    ) -> None:
        """Make the judge.

        Args:
            config: The model's name and how to load it.
            load: Loads the model when the judge is first asked.
            scope: Of its calibration, as for `LabelLogitsJudge`.
        """
        self.config = config
        self.scope = scope
        folder = folder_of(config.model)
        self.id = f"local:{identity_of(folder)}"
        self.abilities = JudgeAbilities(honours_deadline=True, batches=True)
        self._load = load
        self._lock = threading.Lock()
        self._judge: LabelLogitsJudge | None = None
        self.prompt_version = UNREAD
        if family := family_in(folder):
            self.prompt_version = version_of(prompt_for(family), **_options(config))

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request; the first call loads the model.

        Raises:
            JudgeTimeout: If the request's deadline has passed before the model is asked.
            JudgeError: If the model cannot be loaded or asked.
        """
        return self._loaded().judge(request)

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch; raises as `judge` does."""
        return self._loaded().judge_many(requests) if requests else []

    def states(self, requests: Sequence[JudgeRequest]) -> list[Sequence[float]]:
        """Return the state that each request's label is read from; raises as `judge` does."""
        return self._loaded().states(requests)

    def close(self) -> None:
        """Let the model go; asked again, the judge loads it again."""
        with self._lock:
            self._judge = None

    def _loaded(self) -> LabelLogitsJudge:
        with self._lock:
            if self._judge is None:
                self._judge = self._make()
                self.prompt_version = self._judge.prompt_version
            return self._judge

    def _make(self) -> LabelLogitsJudge:
        try:
            engine = self._load(self.config)
        except (ModelError, OSError, ValueError, ImportError) as error:
            raise JudgeError(
                f"The judge's model {self.config.model!r} could not be loaded.",
                hint="Check judge.model, judge.device and judge.local_files_only.",
                reason="its model could not be loaded",
            ) from error
        return LabelLogitsJudge(engine, id=self.id, scope=self.scope, **_options(self.config))


def _options(config: LocalJudgeConfig) -> dict[str, Any]:
    return config.model_dump(
        include={"min_label_mass", "caption", "rationale", "debias", "trim_borders"}
    )
