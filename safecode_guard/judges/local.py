"""Another local model as the judge, loaded when it is first asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from safecode_guard.errors import JudgeError, ModelError
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.prompts import GENERAL
from safecode_guard.judges.protocol import JudgeRequest
from safecode_guard.models.protocol import VisionLanguageModel
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.verdict import Judgement

Loader = Callable[[LocalJudgeConfig], VisionLanguageModel]
"""Loads the model that a configuration names."""


class LocalJudge:
    """A `LabelLogitsJudge` over a model of its own; construction loads nothing.

    It has no ``question``: the guarded model's prefix is of no use to another model.
    """

    gives_categories = False
    honours_deadline = True

    def __init__(self, config: LocalJudgeConfig, *, load: Loader) -> None:
        """Make the judge.

        Args:
            config: The model's name and how to load it.
            load: Loads the model when the judge is first asked.
        """
        self.config = config
        self.id = f"local:{config.model}"
        options = config.model_dump_json(include={"min_label_mass", "caption", "rationale"})
        self.prompt_version = f"{GENERAL.version}:{options}"
        self._load = load
        self._lock = threading.Lock()
        self._judge: LabelLogitsJudge | None = None

    def judge(self, request: JudgeRequest) -> Judgement:
        """Judge one request; the first call loads the model.

        Raises:
            JudgeTimeout: If the request's deadline has passed before the model is asked.
            JudgeError: If the model cannot be loaded or asked.
        """
        return self._loaded().judge(request)

    async def ajudge(self, request: JudgeRequest) -> Judgement:
        """Judge one request in a worker thread; raises as `judge` does."""
        return await asyncio.to_thread(self.judge, request)

    def judge_many(self, requests: list[JudgeRequest]) -> list[Judgement]:
        """Judge requests in one batch; raises as `judge` does."""
        return self._loaded().judge_many(requests)

    def _loaded(self) -> LabelLogitsJudge:
        with self._lock:
            if self._judge is None:
                self._judge = self._make()
            return self._judge

    def _make(self) -> LabelLogitsJudge:
        try:
            vlm = self._load(self.config)
        except (ModelError, OSError) as error:
            raise JudgeError(
                f"The judge's model {self.config.model!r} could not be loaded.",
                hint="Check judge.model, judge.device and judge.local_files_only.",
            ) from error
        return LabelLogitsJudge(
            vlm,
            min_label_mass=self.config.min_label_mass,
            caption=self.config.caption,
            rationale=self.config.rationale,
            id=self.id,
            prompt_version=self.prompt_version,
        )
