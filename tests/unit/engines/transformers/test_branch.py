from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from safecode_guard.engines.transformers.branch import TransformersBranch
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.runner import Runner
from safecode_guard.errors import LogitsUnavailable, UnsupportedFamily
from safecode_guard.models.protocol import Sampling
from tests import families
from tests.families import ask, picture

Build = Callable[[str], TransformersModel]
GREEDY = Sampling(do_sample=False, max_tokens=8)


def prefilled(
    vlm: TransformersModel, sampling: Sampling = GREEDY, *texts: str
) -> TransformersBranch:
    turns = [ask(text, picture(i)) for i, text in enumerate(texts or ("Hello!",))]
    return vlm.prefill(vlm.encode(turns), sampling)


def test_logits_are_ordinary_float32_copies(build: Build) -> None:
    branch = prefilled(build("llava"))
    first = branch.logits
    kept = first.clone()
    branch.step(first.argmax(-1))
    assert torch.equal(first, kept), "a step makes new logits"
    assert not first.is_inference()
    first += 1.0  # callers may edit them outside inference mode


@pytest.mark.parametrize("blocks", [[], [[1]], [[1], []], [[1], [2], [3]]])
def test_extend_needs_a_block_for_each_row(build: Build, blocks: list[list[int]]) -> None:
    branch = prefilled(build("llava"), GREEDY, "Hello!", "unsafe")
    with pytest.raises(ValueError, match="need 2 blocks"):
        branch.extend(blocks)


def test_block_may_be_longer_than_the_prefix(build: Build) -> None:
    for name in ("gemma3", "mllama", "qwen2_vl"):
        vlm = build(name)
        branch = prefilled(vlm)
        block = vlm.vocabulary.encode("climb the wall safely " * 12)
        stepped = branch.fork()
        branch.extend([block])
        for token in block:
            stepped.step(torch.tensor([token]))
        torch.testing.assert_close(branch.logits, stepped.logits, atol=1e-4, rtol=1e-4)


def test_long_blocks_in_pieces_equal_one_pass(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in families.NAMES:
        vlm = build(name)
        blocks = [vlm.vocabulary.encode(text) for text in ("climb the wall safely " * 3, "a wall")]
        if not vlm.family.ragged_extend:
            blocks[1] = blocks[0][::-1]
        whole = prefilled(vlm, GREEDY, "Hello!", "describe the scene")
        pieces = whole.fork()
        whole.extend(blocks)
        with monkeypatch.context() as patch:
            patch.setattr("safecode_guard.engines.transformers.branch._CHUNK", 4)
            pieces.extend(blocks)
        torch.testing.assert_close(pieces.logits, whole.logits, atol=1e-4, rtol=1e-4, msg=name)
        assert pieces.ids == whole.ids
        tokens = whole.logits.argmax(-1)
        torch.testing.assert_close(pieces.step(tokens), whole.step(tokens), atol=1e-4, rtol=1e-4)


def test_select_can_reorder_and_repeat_rows(build: Build) -> None:
    for name in ("llava", "qwen2_5_vl", "qwen3_5", "mllama"):
        branch = prefilled(build(name), GREEDY, "Hello!", "describe the scene")
        logits = branch.logits
        branch.select([1, 0, 1])
        assert torch.equal(branch.logits, logits[[1, 0, 1]])
        branch.step(branch.logits.argmax(-1))
        torch.testing.assert_close(branch.logits[0], branch.logits[2])


def test_fork_keeps_the_rows_that_the_original_drops(build: Build) -> None:
    branch = prefilled(build("qwen3_5"), GREEDY, "Hello!", "describe the scene")
    fork = branch.fork()
    branch.select([1])
    assert (branch.rows, fork.rows) == (1, 2)
    fork.step(torch.tensor([5, 6]))
    branch.step(torch.tensor([6]))
    torch.testing.assert_close(fork.logits[1], branch.logits[0], atol=1e-4, rtol=1e-4)


def test_forks_share_their_caches(build: Build) -> None:
    branch = prefilled(build("llava"))
    fork = branch.fork()
    held = {key.data_ptr() for layer in branch._cache.layers for key in (layer.keys,)}
    assert held == {layer.keys.data_ptr() for layer in fork._cache.layers}


def test_warp_draws_by_the_sampling_parameters(build: Build) -> None:
    vlm = build("llava")
    branch = prefilled(vlm, Sampling(do_sample=True, temperature=0.5, top_k=3))
    warped = branch.warp(branch.logits, [0])
    assert int(warped.isfinite().sum()) == 3
    best = branch.logits.topk(3)
    torch.testing.assert_close(warped.topk(3).values, best.values / 0.5)


def test_repetition_penalty_knows_each_rows_history_and_no_padding(build: Build) -> None:
    vlm = build("llava")
    sampling = Sampling(do_sample=False, repetition_penalty=1.7)
    texts = ("Hello!", "describe the scene, safe or unsafe")
    batch = prefilled(vlm, sampling, *texts)
    for i, text in enumerate(texts):
        single = vlm.prefill(vlm.encode([ask(text, picture(i))]), sampling)
        scores = torch.randn(1, vlm.vocabulary.size)  # the padding token's among them
        expected = single.warp(scores, [0])
        assert not torch.equal(expected, scores)
        assert torch.equal(batch.warp(scores, [i]), expected)


def test_processors_count_from_the_end_of_the_extended_prompt(build: Build) -> None:
    vlm = build("llava")
    (eos,) = vlm.vocabulary.eos_ids
    vlm.model.generation_config.min_new_tokens = 2
    try:
        branch = prefilled(vlm)
        branch.extend([vlm.vocabulary.encode("describe the scene")])
        branch.step(torch.tensor([7]))  # nothing is warped before the first token
        for forbidden in (True, False):
            scores = branch.warp(branch.logits, [0])
            assert bool(scores[0, eos].isneginf()) is forbidden
            branch.step(torch.tensor([7]))
    finally:
        vlm.model.generation_config.min_new_tokens = None


def test_module_state_is_each_branchs_own(build: Build) -> None:
    vlm = build("qwen2_5_vl")
    holder = next(m for m in vlm.model.modules() if hasattr(m, "rope_deltas"))
    before = holder.rope_deltas
    left = prefilled(vlm, GREEDY, "Hello!")
    right = prefilled(vlm, GREEDY, "Hello!", "describe")
    assert holder.rope_deltas is before, "nothing is left behind on the module"
    assert [len(state) for state in left._states] == [1]
    assert [len(state) for state in right._states] == [2]
    assert [len(state) for state in right.select([1])._states] == [1]


def test_state_of_a_failed_call_is_taken_back(build: Build) -> None:
    vlm = build("qwen2_5_vl")
    holder = next(m for m in vlm.model.modules() if hasattr(m, "rope_deltas"))
    before = holder.rope_deltas
    with pytest.raises(RuntimeError, match="midway"):
        fail_midway(Runner(vlm.model, ["rope_deltas"]), holder)
    assert holder.rope_deltas is before


def fail_midway(engine: Runner, holder: Any) -> None:
    with engine.running(["a state"]):
        assert holder.rope_deltas == "a state"
        raise RuntimeError("midway")


def test_branches_of_one_model_run_in_threads(build: Build) -> None:
    vlm = build("qwen2_vl")
    turns = [ask(text, picture(i)) for i, text in enumerate(("Hello!", "describe", "unsafe"))]

    def decode(turn: Any) -> list[int]:
        branch, found = vlm.prefill(vlm.encode([turn]), GREEDY), []
        for _ in range(8):
            found.append(int(branch.logits.argmax()))
            branch.step(branch.logits.argmax(-1))
        return found

    expected = [decode(turn) for turn in turns]
    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.__setitem__(i, decode(turns[i])))
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(3)] == expected


class Stub(torch.nn.Module):
    """A module whose ``generate`` and forward pass give whatever a test wants."""

    def __init__(self, outputs: Any, **kwargs: Any) -> None:
        super().__init__()
        self.outputs, self.kwargs = outputs, kwargs

    def generate(self, input_ids: Any, attention_mask: Any, custom_generate: Any) -> Any:
        return custom_generate(self, input_ids, None, None, None, **self.kwargs)

    def prepare_inputs_for_generation(self, input_ids: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def forward(self, return_dict: bool) -> Any:
        return self.outputs


ONE = {"input_ids": torch.ones(1, 2, dtype=torch.long), "attention_mask": torch.ones(1, 2)}
CACHE = SimpleNamespace(layers=[])


@pytest.mark.parametrize(
    "outputs", [SimpleNamespace(past_key_values=CACHE), SimpleNamespace(logits=torch.ones(1, 2, 3))]
)
def test_models_without_logits_or_cache_are_refused(outputs: Any) -> None:
    stub = Stub(outputs)
    with pytest.raises(LogitsUnavailable, match="judge_only"):
        TransformersBranch(Runner(stub), stub, ONE, options={})


def test_unknown_inputs_between_steps_are_refused() -> None:
    outputs = SimpleNamespace(past_key_values=CACHE, logits=torch.ones(1, 2, 3))
    stub = Stub(outputs, audio_mask=torch.ones(1, 2))
    with pytest.raises(UnsupportedFamily, match=r"does not know: \['audio_mask'\]"):
        TransformersBranch(Runner(stub), stub, ONE, options={})


def test_memory_of_dropped_rows_is_freed(build: Build) -> None:
    for name in families.NAMES:
        branch = prefilled(build(name), GREEDY, "Hello!", "Hello!", "Hello!", "Hello!")
        full = branch.nbytes
        assert full > 0
        assert branch.select([0]).nbytes <= full // 4
