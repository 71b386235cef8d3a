"""Fitting RAS end to end on the embedded model, and guarding with what comes of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from safecode_guard import ChatTransformers, SafeCoDeGuard, Verdict
from safecode_guard.bench.paired.items import tiny_exam
from safecode_guard.bench.ras import run as bench
from safecode_guard.bench.ras.fit import LEAST, examples_of, moved, prototypes_of
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.errors import GuardError, PolicyError
from safecode_guard.judges.content import image_block
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.tiny.load import weights_path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ras") / "ras.safetensors"
    assert bench.main(["--pairs", str(LEAST), "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture(scope="module")
def model() -> TransformersModel:
    return TransformersModel.load(str(weights_path("chat")), local_files_only=True)


def asked(seed: int = 3) -> list[HumanMessage]:
    item = tiny_exam(1, scary=0, looks=0, split="validation", seed=seed).of("unsafe")[0]
    picture = image_block(item.turn.images[0].pixels)
    return [HumanMessage([picture, {"type": "text", "text": item.turn.query}])]


def guarded(**policy: Any) -> Verdict:
    guard = SafeCoDeGuard(model=ChatTransformers.tiny(), policy=policy)
    return Verdict.from_message(guard.invoke(asked()))


def test_the_command_tells_how_s0_moves_and_what_a_policy_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ras.safetensors"
    assert bench.main(["--pairs", str(LEAST), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    told = tomllib.loads("[decoding]" + printed.split("\n[decoding]")[1])
    assert told["decoding"] == {"strategy": "ras", "prototypes": str(out)}
    assert "how s0 moves with fewer turns" in " ".join(printed.split())
    assert Prototypes.read(out).fitted.examples == 2 * LEAST


def test_s0_moves_less_with_more_turns_and_alike_for_a_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = []
    for name in ("one", "other"):
        bench.main(["--pairs", "32", "--out", str(tmp_path / name), "--json"])
        records.append(json.loads(capsys.readouterr().out))
    assert records[0] == records[1]
    few, *_, many = records[0]["fewer"]
    assert (few["a_side"], many["a_side"]) == (4, 32)
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert records[0]["cap"] is None


def test_too_few_turns_or_refusals_are_an_error(model: TransformersModel) -> None:
    exam = tiny_exam(LEAST, scary=0, looks=0, split="validation")
    with pytest.raises(GuardError, match="15 unsafe"):
        examples_of(model, exam.items[: 2 * (LEAST - 1)], exam.is_refusal)
    with pytest.raises(GuardError, match="refuses 0 of"):
        examples_of(model, exam.items, lambda text: False)


def test_prototypes_are_of_the_refusals_alone(model: TransformersModel) -> None:
    exam = tiny_exam(LEAST, scary=0, looks=0, split="validation")
    examples = examples_of(model, exam.items, exam.is_refusal)
    assert 4 <= len(examples.refusals) < LEAST
    firsts = prototypes_of(examples.refusals, None).argmax(-1)
    assert exam.is_refusal(model.vocabulary.decode(firsts.tolist()) + " ")
    assert [each.a_side for each in moved(examples, seed=1)] == [4, 8, 16]


def test_a_guard_steers_by_it(file: Path) -> None:
    verdict = guarded(decoding={"strategy": "ras", "prototypes": str(file)})
    assert verdict.decoding is not None
    assert (verdict.decoding.strategy, verdict.decoding.steps) == ("ras", 3)
    parameters = json.loads(verdict.model_dump_json())["decoding"]["parameters"]
    assert 0 < parameters["share"] < 1
    assert parameters["prototypes"] == Prototypes.read(file).id


def test_safecode_steers_by_its_risk(file: Path) -> None:
    verdict = guarded(judge={"kind": "ras", "prototypes": str(file)}, thresholds=BOTH)
    assert verdict.judge is not None
    assert verdict.decoding is not None
    assert verdict.judge.id == f"ras:{Prototypes.read(file).id}"
    assert verdict.decoding.strategy == "safecode"
    assert verdict.p_unsafe is not None
    certainty = abs(2 * verdict.p_unsafe - 1)
    record = verdict.decoding.parameters
    full = ChatTransformers.tiny().engine.family.steering
    sign = 1 if record["direction"] == "boost" else -1
    whole = full["lambda_boost"] if sign > 0 else full["lambda_supp"]
    assert record["push"] == pytest.approx(sign * whole * certainty ** full["certainty_power"])


BOTH = {"safe": 0.5, "unsafe": 0.5}
"""Nothing is undecided."""


def test_its_own_judges_risk_is_used_again(file: Path) -> None:
    prototypes = {"prototypes": str(file)}
    policy: dict[str, Any] = {
        "judge": {"kind": "ras", **prototypes},
        "decoding": {"strategy": "ras", **prototypes},
        "thresholds": BOTH,
    }
    verdict = guarded(**policy)
    assert verdict.decoding is not None
    assert verdict.decoding.parameters["share"] == verdict.p_unsafe
    alone = guarded(decoding=policy["decoding"])
    assert alone.decoding is not None
    assert alone.decoding.parameters["share"] == pytest.approx(verdict.p_unsafe, abs=1e-5)


def test_the_digest_is_of_what_the_file_says(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "ras.safetensors"
    digests = set()
    for pairs in (LEAST, LEAST + 4):
        bench.main(["--pairs", str(pairs), "--out", str(other), "--json"])
        named = {"prototypes": str(other)}
        digests.add(guarded(decoding={"strategy": "ras", **named}).policy.digest)
        digests.add(guarded(judge={"kind": "ras", **named}).policy.digest)
    assert len(digests) == 4


def test_another_models_prototypes_start_no_guard(file: Path, tmp_path: Path) -> None:
    made = Prototypes.read(file)
    other = tmp_path / "other.safetensors"
    Prototypes(made.logits, type(made.fitted)("chat@0", s0=0.5, k=9.0)).write(other)
    with pytest.raises(PolicyError, match="'chat@0'"):
        guarded(decoding={"strategy": "ras", "prototypes": str(other)})
    with pytest.raises(PolicyError, match="'chat@0'"):
        SafeCoDeGuard(
            model=ChatTransformers.tiny(),
            policy={"judge": {"kind": "ras", "prototypes": str(other)}},
        )
