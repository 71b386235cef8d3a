from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from safecode_guard import ChatTransformers, SafeCoDeCheck, SafeCoDeGuard
from safecode_guard.telemetry import Telemetry
from safecode_guard.testing import ScriptedJudge, ScriptedVLM
from tests.messages import ask


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    data: Any = reader.get_metrics_data()
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_verdicts_failures_and_times_are_counted() -> None:
    reader = InMemoryMetricReader()
    sink = Telemetry(meter_provider=MeterProvider([reader]))
    judge = ScriptedJudge([0.9, 0.1, ValueError("secret words"), 0.1])
    check = SafeCoDeCheck(judge=judge, sinks=[sink])
    for text in ("a", "b", "c", "d", "d"):
        check.check(ask(text))
    verdicts = points(reader, "safecode.verdicts")
    assert sum(point.value for point in verdicts) == 5
    by_label = {p.attributes["safecode.label"]: p.value for p in verdicts}
    assert by_label == {"unsafe": 1, "safe": 3, "none": 1}
    (failed,) = points(reader, "safecode.checks.failed")
    assert (failed.value, failed.attributes["safecode.judge"]) == (1, judge.id)
    (duration,) = points(reader, "safecode.judge.duration")
    assert duration.count == 3  # neither the failed one nor the cached one
    assert "secret words" not in repr(reader.get_metrics_data())


def test_what_became_of_steered_answers_is_counted_apart() -> None:
    reader = InMemoryMetricReader()
    sink = Telemetry(meter_provider=MeterProvider([reader]))
    model = ChatTransformers.from_engine(ScriptedVLM("Run."), temperature=0)
    for p_unsafe in (0.9, 0.1, 0.5):
        SafeCoDeGuard(model=model, judge=ScriptedJudge(p_unsafe), sinks=[sink]).invoke(ask())
    assert sum(point.value for point in points(reader, "safecode.verdicts")) == 3
    answers = {
        (p.attributes["safecode.label"], p.attributes["safecode.obeyed"]): p.value
        for p in points(reader, "safecode.answers")
    }
    assert answers == {("unsafe", "no"): 1, ("safe", "yes"): 1}


def test_the_span_that_a_verdict_is_made_in_is_marked_without_content() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    check = SafeCoDeCheck(judge=ScriptedJudge(0.9), sinks=[Telemetry()])
    with provider.get_tracer("test").start_as_current_span("turn"):
        check.check(ask("a private request"))
    (span,) = exporter.get_finished_spans()
    (event,) = span.events
    assert event.name == "safecode.verdict"
    assert event.attributes is not None
    assert event.attributes["safecode.label"] == "unsafe"
    assert event.attributes["safecode.judge_health"] == "ok"
    assert "private" not in repr(dict(event.attributes))


def test_what_breaks_in_telemetry_stops_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Telemetry()

    def broken(*args: Any) -> None:
        raise RuntimeError("exporter down")

    monkeypatch.setattr(sink, "_count", broken)
    verdict = SafeCoDeCheck(judge=ScriptedJudge(0.1), sinks=[sink]).check(ask("a"))
    assert verdict.label == "safe"


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ImportError, match=r"safecode-guard\[otel\]"):
        Telemetry()
