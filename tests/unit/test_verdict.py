from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from pydantic import ValidationError

from safecode_guard.taxonomy import ACTIONS, CATEGORIES, LABELS, severity
from safecode_guard.verdict import (
    EVENT_NAME,
    METADATA_KEY,
    DecodingRecord,
    Judgement,
    JudgeRecord,
    PolicyRef,
    Review,
    SkippedMedia,
    SubjectImage,
    ToolCallRef,
    Verdict,
    to_metadata,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "verdict.v1.schema.json"
POLICY = PolicyRef(name="balanced", digest="0" * 64)


def verdict(**values: Any) -> Verdict:
    return Verdict(**{"label": "safe", "action": "guide", "policy": POLICY, **values})


FULL = verdict(
    obeyed=True,
    followed_by="retry",
    run_id="run",
    stage="tool_call",
    label="unsafe",
    action="review",
    p_unsafe=0.9,
    label_mass=0.99,
    categories=("situational", "hate"),
    caption="A cliff.",
    rationale="Falling.",
    parse_status="logits",
    degraded=True,
    images=(SubjectImage(sha256="a", message_index=0, mime="image/png", width=2, height=3),),
    media_skipped=(SkippedMedia(message_index=1, block_index=0, kind="audio", reason="audio"),),
    left_out=(SkippedMedia(message_index=0, block_index=2, kind="image", reason="overflow"),),
    decided_by=(0,),
    tool_call=ToolCallRef(id="1", name="run", args_sha256="b"),
    judge=JudgeRecord(id="j", prompt_version="1", latency_ms=1.5, members=("x", "y")),
    decoding=DecodingRecord(
        strategy="safecode",
        seed=0,
        steps=5,
        parameters={"recipe": "guarded", "alpha": 0.3},
    ),
    review=Review(decision="reject", by="ops", at=datetime(2026, 1, 2, tzinfo=UTC)),
    error="JudgeTimeout",
)


def message(*verdicts: Verdict) -> AIMessage:
    return AIMessage("Hi.", response_metadata=to_metadata(verdicts))


# -- the record ---------------------------------------------------------------------------------


def test_a_verdict_survives_json() -> None:
    wire = json.dumps(FULL.to_json())
    assert Verdict.model_validate_json(wire) == FULL
    assert set(FULL.to_json()) == set(Verdict.model_fields)


@given(
    p=st.none() | st.floats(0, 1),
    label=st.none() | st.sampled_from(LABELS),
    action=st.sampled_from(ACTIONS),
    categories=st.lists(st.sampled_from(CATEGORIES), unique=True),
    caption=st.none() | st.text(),
)
def test_any_verdict_survives_json(
    p: float | None, label: Any, action: Any, categories: list[Any], caption: str | None
) -> None:
    made = verdict(
        p_unsafe=p, label=label, action=action, categories=tuple(categories), caption=caption
    )
    assert Verdict.model_validate(json.loads(json.dumps(made.to_json()))) == made


def test_every_field_of_a_full_verdict_is_set() -> None:
    """Or the round trips above would not try it."""
    open_fields = {n for n in Verdict.model_fields if getattr(FULL, n) in (None, (), {}, "", False)}
    assert open_fields == set()


def test_a_steering_record_holds_only_what_was_used() -> None:
    record = DecodingRecord(strategy="verdict_prompt", seed=0, steps=0)
    assert record.parameters == {}
    assert set(DecodingRecord.model_fields) == {"strategy", "seed", "steps", "parameters"}


def test_a_verdict_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        verdict().action = "pass"  # type: ignore[misc]


def test_verdicts_have_ids_and_times_of_their_own() -> None:
    first, second = verdict(), verdict()
    assert first.id != second.id
    assert first.created_at.utcoffset() is not None


@pytest.mark.parametrize("missing", ["label", "action", "policy"])
def test_a_verdict_needs_its_decision(missing: str) -> None:
    values = {"label": "safe", "action": "guide", "policy": POLICY}
    del values[missing]
    with pytest.raises(ValidationError, match=missing):
        Verdict(**values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("label", "fine"), ("action", "warn"), ("stage", "middle"), ("categories", ("arson",))],
)
def test_the_vocabularies_are_closed(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        verdict(**{field: value})


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_a_judgement_has_a_probability_or_none(p: float) -> None:
    with pytest.raises(ValidationError, match="p_unsafe"):
        Judgement(judge_id="j", prompt_version="1", p_unsafe=p)
    assert Judgement(judge_id="j", prompt_version="1").p_unsafe is None


def test_a_newer_minor_field_is_let_be_and_a_newer_version_is_not() -> None:
    data = verdict().to_json()
    assert Verdict.model_validate({**data, "mood": "calm"}).id == data["id"]
    with pytest.raises(ValidationError, match="schema_version"):
        Verdict.model_validate({**data, "schema_version": 2})


# -- on messages --------------------------------------------------------------------------------


def test_a_message_without_a_verdict_has_none() -> None:
    assert Verdict.from_message(AIMessage("Hi.")) is None
    assert Verdict.from_message(HumanMessage("Hi.")) is None
    assert Verdict.all_from_message(AIMessage("Hi.")) == ()


def test_the_most_severe_verdict_speaks_for_the_message() -> None:
    verdicts = [verdict(action=action) for action in ("guide", "block", "pass", "review")]
    found = Verdict.from_message(message(*verdicts))
    assert found == verdicts[1]
    assert Verdict.all_from_message(message(*verdicts)) == tuple(verdicts)


def test_a_stage_can_be_asked_for() -> None:
    judged = message(verdict(stage="input", action="block"), verdict(stage="output", action="pass"))
    found = Verdict.from_message(judged, stage="output")
    assert found is not None
    assert found.action == "pass"
    assert Verdict.from_message(judged, stage="tool_call") is None


def test_chunks_merge_into_a_message_with_every_verdict() -> None:
    """A dict would merge into "guideguide", and floats in it would raise."""
    first, last = FULL, verdict(stage="output", action="pass")
    chunks = [
        AIMessageChunk("", response_metadata=to_metadata([first])),
        AIMessageChunk("Hello"),
        AIMessageChunk(" there", response_metadata=to_metadata([last])),
    ]
    merged = chunks[0] + chunks[1] + chunks[2]
    assert merged.content == "Hello there"
    assert Verdict.all_from_message(merged) == (first, last)


def test_metadata_is_plain_json() -> None:
    metadata = to_metadata([FULL])
    assert json.loads(json.dumps(metadata)) == metadata
    assert list(metadata) == [METADATA_KEY]


def test_severity_ranks_the_actions() -> None:
    assert [severity(action) for action in ("pass", "guide", "review", "block")] == [0, 1, 2, 3]


# -- from events --------------------------------------------------------------------------------


def test_a_verdict_is_read_from_each_kind_of_event() -> None:
    payload = FULL.to_json()
    stream = {"event": "on_custom_event", "name": EVENT_NAME, "data": payload, "run_id": "r"}
    assert Verdict.from_event(stream) == FULL
    assert Verdict.from_event(payload) == FULL
    assert Verdict.from_event({EVENT_NAME: payload}) == FULL


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "on_chat_model_stream", "data": {"chunk": 1}, "name": "guard"},
        {"event": "on_custom_event", "name": "other", "data": {"schema_version": 1}},
        {"event": "on_custom_event", "name": "other", "data": "text"},
        {"event": "on_custom_event", "name": EVENT_NAME},
        {"progress": 0.5},
    ],
)
def test_other_events_are_no_verdict(event: dict[str, Any]) -> None:
    assert Verdict.from_event(event) is None


# -- the published schema -----------------------------------------------------------------------


def changes(old: Any, new: Any, path: str = "verdict") -> Iterator[str]:
    """Yield what a reader of the old schema could trip over; texts and new properties are free."""
    if isinstance(old, dict) and isinstance(new, dict):
        grows = path.endswith((".properties", ".$defs"))
        for key in old.keys() - {"description", "title", "$id"}:
            if key not in new:
                yield f"{path}.{key} is gone"
            else:
                yield from changes(old[key], new[key], f"{path}.{key}")
        if not grows:
            free = {"description", "title", "$id", "properties", "$defs"}
            yield from (f"{path}.{key} is new" for key in new.keys() - old.keys() - free)
    elif old != new:
        yield f"{path} was {old!r} and is {new!r}"


def test_the_schema_only_ever_gains_fields() -> None:
    """Within version 1 verdicts already written stay valid, and their readers keep working."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert list(changes(golden, Verdict.model_json_schema())) == []


MUTATIONS: dict[str, Any] = {
    "a field removed": lambda s: s["properties"].pop("caption"),
    "a field retyped": lambda s: s["properties"].update(caption={"type": "integer"}),
    "a field made required": lambda s: s["required"].append("caption"),
    "an action added": lambda s: s["properties"]["action"]["enum"].append("warn"),
    "a limit added": lambda s: s["properties"]["id"].update(maxLength=3),
    "a default changed": lambda s: s["properties"]["stage"].update(default="output"),
    "a nested field removed": lambda s: s["$defs"]["PolicyRef"]["properties"].pop("digest"),
    "extras forbidden": lambda s: s.update(additionalProperties=False),
}


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
def test_the_schema_check_sees_a_breaking_change(mutate: Any) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    broken = copy.deepcopy(golden)
    mutate(broken)
    assert list(changes(golden, broken)) != []


def test_the_schema_check_allows_a_new_optional_field() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    grown = copy.deepcopy(golden)
    grown["properties"]["mood"] = {"type": "string", "default": "calm"}
    grown["$defs"]["Mood"] = {"type": "object"}
    grown["properties"]["caption"]["description"] = "Another text."
    assert list(changes(golden, grown)) == []
