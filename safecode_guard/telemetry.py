"""Verdicts as OpenTelemetry metrics and span events: numbers and names, never content.

Nothing is sent anywhere by this: the API hands on to whatever the application has set up, and does
nothing where it has set up nothing. It needs the extra ``otel``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from safecode_guard.verdict import CLOSED_EVENT, EVENT_NAME, Verdict

SCOPE: Final = "safecode_guard"
_LOG: Final = logging.getLogger("safecode_guard.telemetry")


class Telemetry:
    """A sink that counts verdicts, times judges and marks the span that a verdict was made in.

    Metrics: ``safecode.verdicts`` (by stage, label, action), ``safecode.checks.failed`` (by stage,
    judge), ``safecode.judge.duration`` in seconds (by stage, judge), cached judgements left out,
    and ``safecode.answers`` (by label, obeyed, followed_by): what became of steered answers. The
    current span gets events ``safecode.verdict`` and ``safecode.verdict.closed``. What goes wrong
    here is logged, and stops no turn.

    Example:
        >>> guard = SafeCoDeGuard(model=model, sinks=[Telemetry()])       # doctest: +SKIP
    """

    def __init__(self, *, meter_provider: Any = None) -> None:
        """Make the instruments.

        Args:
            meter_provider: Of OpenTelemetry; None: the one that the application has set.

        Raises:
            ImportError: If ``opentelemetry-api`` is not installed; the message names the extra.
        """
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise ImportError(
                "Telemetry needs opentelemetry-api: pip install 'safecode-guard[otel]'."
            ) from error
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._trace = trace
        self._verdicts = meter.create_counter("safecode.verdicts", unit="{verdict}")
        self._answers = meter.create_counter("safecode.answers", unit="{answer}")
        self._failed = meter.create_counter("safecode.checks.failed", unit="{check}")
        self._duration = meter.create_histogram("safecode.judge.duration", unit="s")

    def __call__(self, verdict: Verdict) -> None:
        """Count a verdict."""
        self._safely(self._count, verdict)

    def closed(self, verdict: Verdict) -> None:
        """Count what became of a steered answer; its verdict was counted before."""
        self._safely(self._count_answer, verdict)

    def _safely(self, count: Callable[[Verdict], None], verdict: Verdict) -> None:
        try:
            count(verdict)
        except Exception:  # whatever a provider raises, telemetry stops no turn
            _LOG.warning("A verdict could not be counted", exc_info=True)

    def _count_answer(self, verdict: Verdict) -> None:
        facts: dict[str, Any] = {
            "safecode.label": verdict.label or "none",
            "safecode.obeyed": {True: "yes", False: "no", None: "not told"}[verdict.obeyed],
            "safecode.followed_by": verdict.followed_by or "none",
        }
        self._answers.add(1, facts)
        facts["safecode.verdict_id"] = verdict.id
        self._trace.get_current_span().add_event(CLOSED_EVENT, facts)

    def _count(self, verdict: Verdict) -> None:
        labels = {
            "safecode.stage": verdict.stage,
            "safecode.label": verdict.label or "none",
            "safecode.action": verdict.action,
        }
        self._verdicts.add(1, labels)
        judge = verdict.judge
        if judge is not None:
            asked = {"safecode.stage": verdict.stage, "safecode.judge": judge.id}
            if verdict.error is not None:
                self._failed.add(1, asked)
            elif not judge.cached:
                self._duration.record(judge.latency_ms / 1000, asked)
        facts: dict[str, Any] = {**labels, "safecode.verdict_id": verdict.id}
        if verdict.p_unsafe is not None:
            facts["safecode.p_unsafe"] = verdict.p_unsafe
        if judge is not None:
            facts["safecode.judge"] = judge.id
            facts["safecode.judge_health"] = judge.health
        self._trace.get_current_span().add_event(EVENT_NAME, facts)
