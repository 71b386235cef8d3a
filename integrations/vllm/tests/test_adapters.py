"""vLLM's interfaces over fakes: what reaches the pairs, and what is refused."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine import COVER, EOS, HALT, SEAL, SIZE, in_process, logits, spec
from safecode_guard_vllm import v1, v2
from safecode_guard_vllm.scheduler import AsyncPairScheduler, PairScheduler
from vllm.v1.sample.logits_processor import MoveDirectionality

from safecode_guard.steering.pairs.spec import PairSpec

SEED = 11


def whole_spec() -> PairSpec:
    """Return a spec whose guided steps stay within its cover."""
    for seed in range(100):
        made = spec(random.Random(seed))
        tokens, whole = in_process(made, SEED)
        if whole and len(tokens) > 2 and EOS not in tokens:
            return made
    raise AssertionError("no such spec")


MAIN = whole_spec()
TWIN = MAIN.twin
GUIDED, _ = in_process(MAIN, SEED)


def params(made: PairSpec, **more: Any) -> SimpleNamespace:
    twin = made.role == "twin"
    stops = [HALT, SEAL] if twin else [HALT]
    values = {"n": 1, "temperature": 0.0, "stop_token_ids": stops, "ignore_eos": twin}
    values |= {"max_tokens": MAIN.longest + 1, "extra_args": {"safecode": made.to_text()}}
    return SimpleNamespace(**values | more)


def update(removed: Any = (), added: Any = (), moved: Any = ()) -> SimpleNamespace:
    return SimpleNamespace(batch_size=4, removed=removed, added=added, moved=moved)


def test_v1_steers_a_pair_through_moves_and_leaves_others_alone() -> None:
    processor = v1.SafeCoDe(SimpleNamespace(speculative_config=None), "cpu", False)
    assert not processor.is_argmax_invariant()
    main, twin, other = [], [], SimpleNamespace(extra_args=None)
    at = {"main": 0, "twin": 2}
    processor.update_state(
        update(
            added=[(0, params(MAIN), None, main), (1, other, None, []), (2, params(TWIN), [], twin)]
        )
    )
    for step in range(len(GUIDED) + 1):
        rows = torch.randn(4, SIZE)
        for role, written in (("main", main), ("twin", twin)):
            rows[at[role]] = logits(SEED, role, written)
        before = rows.clone()
        rows = processor.apply(rows)
        assert torch.equal(rows[1], before[1])
        main.append(int(rows[at["main"]].argmax()))
        twin.append(int(rows[at["twin"]].argmax()))
        if step == 0:
            swap = MoveDirectionality.SWAP
            processor.update_state(update(moved=[(0, 2, swap)]))
            at = {"main": 2, "twin": 0}
    assert main[:-1] == GUIDED
    assert twin == [*GUIDED, SEAL]
    processor.update_state(None)
    processor.update_state(update(removed=[0, 2]))
    rows = torch.randn(4, SIZE)
    assert torch.equal(processor.apply(rows.clone()), rows)


def test_v2_steers_a_pair_and_passes_over_unfinished_prefills() -> None:
    prompts, lengths = {3: 5, 7: 4}, torch.zeros(8, dtype=torch.int64)
    for slot, length in prompts.items():
        lengths[slot] = length
    states = SimpleNamespace(
        prompt_len=SimpleNamespace(np=lengths.numpy()),
        prefill_len=SimpleNamespace(np=lengths.numpy()),
        all_token_ids=SimpleNamespace(gpu=torch.zeros(8, 40, dtype=torch.int64)),
    )
    processor = v2.SafeCoDe(SimpleNamespace(), states)
    assert processor.add_request(3, params(MAIN))
    assert processor.add_request(7, params(TWIN))
    assert not processor.add_request(1, SimpleNamespace(extra_args=None))
    written: dict[int, list[int]] = {3: [], 7: []}
    for step in range(len(GUIDED) + 2):
        slots = [1, 7, 3] if step % 2 else [3, 1, 7]
        early = step == 0  # the twin's prompt is not whole yet, nor is the main's
        pos = [
            prompts[s] + len(written[s]) - (2 if early else 1) if s in written else 9 for s in slots
        ]
        rows = torch.randn(3, SIZE)
        for row, slot in enumerate(slots):
            if slot in written:
                rows[row] = logits(SEED, "main" if slot == 3 else "twin", written[slot])
        before = rows.clone()
        context = SimpleNamespace(expanded_idx_mapping=torch.tensor(slots), pos=torch.tensor(pos))
        rows = processor.apply(rows, context)
        assert torch.equal(rows[slots.index(1)], before[slots.index(1)])
        if early:
            assert torch.equal(rows, before)
            continue
        for row, slot in enumerate(slots):
            if slot in written:
                states.all_token_ids.gpu[slot, prompts[slot] + len(written[slot])] = rows[
                    row
                ].argmax()
                written[slot].append(int(rows[row].argmax()))
    assert written[3][:-1] == GUIDED
    assert written[7] == [*GUIDED, SEAL]


def test_v2_halts_what_it_cannot_read() -> None:
    processor = v2.SafeCoDe(SimpleNamespace(), SimpleNamespace())  # the states lack everything
    processor.add_request(0, params(MAIN))
    context = SimpleNamespace(expanded_idx_mapping=torch.tensor([0]), pos=torch.tensor([5]))
    assert int(processor.apply(torch.randn(1, SIZE), context)[0].argmax()) == HALT


def test_an_id_out_of_the_vocabulary_halts_and_raises_nothing() -> None:
    processor = v1.SafeCoDe(SimpleNamespace(speculative_config=None), "cpu", False)
    processor.update_state(update(added=[(0, params(MAIN), None, []), (1, params(TWIN), None, [])]))
    assert COVER.highest < HALT < SIZE
    rows = processor.apply(torch.randn(2, HALT))  # a vocabulary without halt and seal
    assert rows.isfinite().sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("processor", [v1.SafeCoDe, v2.SafeCoDe])
@pytest.mark.parametrize(
    ("made", "more"),
    [
        (MAIN, {"n": 2}),
        (MAIN, {"temperature": 0.7}),
        (MAIN, {"structured_outputs": object()}),
        (MAIN, {"repetition_penalty": 1.2}),
        (MAIN, {"logit_bias": {3: 1.0}}),
        (MAIN, {"stop_token_ids": []}),
        (MAIN, {"extra_args": {"safecode": "{"}}),
        (MAIN, {"extra_args": {"safecode": 5}}),
        (TWIN, {"stop_token_ids": [HALT]}),
        (TWIN, {"ignore_eos": False}),
        (TWIN, {"stop_token_ids": [HALT, SEAL, EOS]}),
        (TWIN, {"max_tokens": MAIN.most}),
    ],
)
def test_what_cannot_be_steered_is_refused(processor: Any, made: PairSpec, more: Any) -> None:
    processor.validate_params(params(made))
    with pytest.raises(ValueError, match="^safecode: "):
        processor.validate_params(params(made, **more))


def test_engines_that_cannot_be_steered_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="specul"):
        v1.SafeCoDe(SimpleNamespace(speculative_config=object()), "cpu", False)
    sharded = SimpleNamespace(parallel_config=SimpleNamespace(enable_batch_sharded_sampling=True))
    with pytest.raises(ValueError, match="whole batch"):
        v2.SafeCoDe(sharded, None)


def request(name: str, made: PairSpec | None, *, tokens: int = 10) -> SimpleNamespace:
    sampling = params(made) if made else SimpleNamespace(extra_args=None)
    return SimpleNamespace(
        request_id=name,
        sampling_params=sampling,
        num_tokens=tokens,
        num_computed_tokens=0,
        num_output_tokens=0,
    )


@pytest.mark.parametrize("kind", [PairScheduler, AsyncPairScheduler])
def test_halves_are_admitted_together_and_end_their_prompts_together(kind: Any) -> None:
    scheduler = kind()
    main, twin, other = request("a", MAIN), request("b", TWIN, tokens=7), request("c", None)
    for each in (main, other):
        scheduler.add_request(each)
    assert scheduler.admitted == [other]
    scheduler.add_request(twin)
    assert scheduler.admitted == [other, main, twin]
    reserve = scheduler._reserve_prefill_lookahead
    assert reserve(other, 0, 10) == 10
    assert reserve(main, 0, 4) == 4
    assert reserve(main, 0, 10) == 9
    main.num_computed_tokens = 9
    assert reserve(main, 9, 1) == 0  # the twin is not as far
    twin.num_computed_tokens = 6
    assert (reserve(main, 9, 1), reserve(twin, 6, 1)) == (1, 1)
    main.num_output_tokens = 1
    assert reserve(main, 10, 1) == 1


def test_lone_doubled_and_third_halves_hold_nobody_up() -> None:
    scheduler = PairScheduler()
    scheduler.add_request(request("a", MAIN))
    scheduler.finish_requests(["a"], "aborted")
    scheduler.add_request(request("b", TWIN))
    assert scheduler.admitted == []
    scheduler.add_request(request("c", TWIN))  # one role twice: both go on, and halt
    scheduler.add_request(request("d", MAIN))
    assert [each.request_id for each in scheduler.admitted] == ["b", "c", "d"]
    assert scheduler.ended == [["a"]]


def test_a_half_whose_partner_has_gone_is_not_held() -> None:
    scheduler = PairScheduler()
    main, twin = request("a", MAIN), request("b", TWIN)
    scheduler.add_request(main)
    scheduler.add_request(twin)
    scheduler._free_request(twin)
    assert scheduler._reserve_prefill_lookahead(main, 0, 10) == 10
    scheduler._free_request(main)
    assert not scheduler._mates
    assert not scheduler._paired
