"""Metrics in Prometheus' form: what was asked, how it ended, how long it took."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from safecode_guard.verdict import Verdict

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter(
            "safecode_requests", "Requests by path and status.", ["path", "status"], **own
        )
        self._verdicts = Counter(
            "safecode_verdicts",
            "Verdicts by stage, label and action.",
            ["stage", "label", "action"],
            **own,
        )
        self._degraded = Counter(
            "safecode_degraded_verdicts", "Verdicts whose check failed or was incomplete.", **own
        )
        self._seconds = Histogram(
            "safecode_request_seconds", "Seconds from a request to its end.", ["path"], **own
        )
        self._under_way = Gauge("safecode_requests_under_way", "Requests under way.", **own)

    def ended(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def verdict(self, verdict: Verdict) -> None:
        """Count a verdict; a sink of the guard."""
        self._verdicts.labels(verdict.stage, str(verdict.label), verdict.action).inc()
        if verdict.degraded:
            self._degraded.inc()

    def text(self, under_way: int) -> bytes:
        """Return all of them."""
        self._under_way.set(under_way)
        return generate_latest(self._registry)
