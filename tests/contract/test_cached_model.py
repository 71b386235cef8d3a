"""What every `CachedModel` must do, over tiny models of all families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from safecode_guard.engines.transformers.branch import TransformersBranch
from safecode_guard.engines.transformers.encoded import EncodedPrompts
from safecode_guard.engines.transformers.model import TransformersModel
from safecode_guard.engines.transformers.prefix import covers_images, shared_length
from safecode_guard.errors import ModelError, TemplateError, UnsupportedGeneration
from safecode_guard.models.protocol import Engine, Sampling
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage
from tests import families
from tests.families import ask, checked, picture
from tests.reference.decode import naive_greedy, naive_logits

GREEDY = Sampling(do_sample=False, max_tokens=12)
SHORT = "Hello!"
LONG = "What about the second one? describe the scene, safe or unsafe"
CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(params=families.NAMES)
def vlm(
    request: pytest.FixtureRequest, build: Callable[[str], TransformersModel]
) -> TransformersModel:
    return build(request.param)


def turns_of(vlm: TransformersModel) -> list[Turn]:
    """Three conversations of different lengths and pictures, one image each."""
    return [
        ask(SHORT, picture(1)),
        ask(LONG, picture(2, (120, 40))),
        ask("How do I sharpen this?", picture(3, (40, 90))),
    ]


def greedy(branch: TransformersBranch, count: int) -> list[list[int]]:
    """Decode every row greedily, [rows][count]."""
    steps = []
    for _ in range(count):
        tokens = branch.warp(branch.logits, range(branch.rows)).argmax(-1)
        steps.append(tokens)
        branch.step(tokens)
    return torch.stack(steps, 1).tolist()


def plain_ids(vlm: TransformersModel, turn: Turn, sampling: Sampling = GREEDY) -> list[int]:
    """Generate with transformers alone, from the processor's own output."""
    inputs = dict(vlm.encode([turn]).inputs)
    options = {"do_sample": sampling.do_sample, "max_new_tokens": sampling.max_tokens}
    options |= {"temperature": sampling.temperature} if sampling.temperature else {}
    ids = vlm.model.generate(**inputs, **options)[0]
    return [int(i) for i in ids[inputs["input_ids"].shape[1] :]]


def test_satisfies_protocol(vlm: TransformersModel) -> None:
    assert isinstance(vlm, Engine)
    branch = vlm.prefill(vlm.encode([ask(SHORT, picture())]), GREEDY)
    assert branch.logits.shape == (1, vlm.vocabulary.size)
    assert branch.logits.dtype == torch.float32
    assert branch.candidates.tolist() == list(range(vlm.vocabulary.size))


def test_greedy_loop_equals_generate(vlm: TransformersModel) -> None:
    for turn in turns_of(vlm):
        expected = plain_ids(vlm, turn)
        found = greedy(vlm.prefill(vlm.encode([turn]), GREEDY), GREEDY.max_tokens)[0]
        assert found[: len(expected)] == expected


def test_generate_equals_generate(vlm: TransformersModel) -> None:
    turn = turns_of(vlm)[0]
    assert vlm.generate([turn], GREEDY) == [vlm.vocabulary.decode(plain_ids(vlm, turn))]


def test_cached_logits_equal_naive_ones(vlm: TransformersModel) -> None:
    turn = turns_of(vlm)[1]
    branch = vlm.prefill(vlm.encode([turn]), GREEDY)
    so_far: list[int] = []
    for _ in range(4):
        torch.testing.assert_close(branch.logits[0], naive_logits(vlm, turn, so_far), **CLOSE)
        so_far.append(int(branch.logits[0].argmax()))
        branch.step(torch.tensor(so_far[-1:]))


def test_padded_batch_equals_one_by_one(vlm: TransformersModel) -> None:
    turns = turns_of(vlm)
    batch = vlm.prefill(vlm.encode(turns), GREEDY)
    singles = [vlm.prefill(vlm.encode([turn]), GREEDY) for turn in turns]
    for _ in range(3):
        expected = torch.cat([single.logits for single in singles])
        torch.testing.assert_close(batch.logits, expected, **CLOSE)
        tokens = expected.argmax(-1)
        batch.step(tokens)
        for single, token in zip(singles, tokens, strict=True):
            single.step(token[None])
    assert batch.ids == [single.ids[0] for single in singles]


def test_cut_and_extended_equals_whole(vlm: TransformersModel) -> None:
    answer = vlm.encode([ask("How do I sharpen this?", picture(4, (90, 60)))])
    question = vlm.encode([ask(LONG, picture(4, (90, 60)))])
    shared = shared_length(answer.ids[0], question.ids[0])
    if not vlm.family.shares_image_prefix:
        pytest.skip("the family's prefixes depend on what follows")
    assert covers_images(answer, [shared])
    assert not covers_images(answer, [1])
    base = vlm.prefill(answer.cut([shared]), GREEDY)
    for prompts in (question, answer):
        branch = base.fork()
        branch.extend([prompts.ids[0][shared:]])
        whole = vlm.prefill(prompts, GREEDY)
        torch.testing.assert_close(branch.logits, whole.logits, **CLOSE)
        assert branch.ids == prompts.ids
        assert greedy(branch, 4) == greedy(whole, 4)


def test_cut_rows_of_different_lengths_equal_whole(vlm: TransformersModel) -> None:
    if not (vlm.family.shares_image_prefix and vlm.family.ragged_extend):
        pytest.skip("the family does not continue rows by blocks of different lengths")
    prompts = vlm.encode(turns_of(vlm))
    lengths = [len(ids) - tail for ids, tail in zip(prompts.ids, (1, 9, 3), strict=True)]
    branch = vlm.prefill(prompts.cut(lengths), GREEDY)
    tails = [ids[length:] for ids, length in zip(prompts.ids, lengths, strict=True)]
    branch.extend(tails)
    whole = vlm.prefill(prompts, GREEDY)
    torch.testing.assert_close(branch.logits, whole.logits, **CLOSE)
    assert greedy(branch, 4) == greedy(whole, 4)


def test_blocks_of_equal_lengths_equal_steps(vlm: TransformersModel) -> None:
    turns = turns_of(vlm)[:2]
    blocks = [
        vlm.vocabulary.encode(" unsafe safe Hello")[:3],
        vlm.vocabulary.encode("climb it")[:3],
    ]
    extended = vlm.prefill(vlm.encode(turns), GREEDY)
    stepped = extended.fork()
    extended.extend(blocks)
    for tokens in zip(*blocks, strict=True):
        stepped.step(torch.tensor(tokens))
    torch.testing.assert_close(extended.logits, stepped.logits, **CLOSE)


def test_ragged_blocks_equal_one_by_one_or_are_refused(vlm: TransformersModel) -> None:
    blocks = [[7], vlm.vocabulary.encode("climb the wall safely")]
    turns = turns_of(vlm)[:2]
    batch = vlm.prefill(vlm.encode(turns), GREEDY)
    if not vlm.family.ragged_extend:
        with pytest.raises(UnsupportedGeneration, match="different lengths"):
            batch.extend(blocks)
        return
    batch.extend(blocks)
    for i, (turn, block) in enumerate(zip(turns, blocks, strict=True)):
        single = vlm.prefill(vlm.encode([turn]), GREEDY)
        single.extend([block])
        torch.testing.assert_close(batch.logits[i], single.logits[0], **CLOSE)
        assert greedy(batch.fork(), 3)[i] == greedy(single, 3)[0]


def test_joined_rows_equal_rows_prefilled_together(vlm: TransformersModel) -> None:
    turns = turns_of(vlm)
    whole = vlm.prefill(vlm.encode(turns), GREEDY)
    prompts = [vlm.encode(turns[:2]), vlm.encode(turns[2:])]
    width = max(len(ids) for part in prompts for ids in part.ids)
    parts = [part.cut([len(ids) for ids in part.ids], width=width) for part in prompts]
    joined = vlm.prefill(parts[0], GREEDY).join(vlm.prefill(parts[1], GREEDY))
    torch.testing.assert_close(joined.logits, whole.logits, **CLOSE)
    assert joined.ids == whole.ids
    assert greedy(joined.select([2, 0]), 4) == greedy(whole.select([2, 0]), 4)


def test_rows_of_other_widths_are_not_joined(vlm: TransformersModel) -> None:
    one, other = (vlm.prefill(vlm.encode([turn]), GREEDY) for turn in turns_of(vlm)[:2])
    with pytest.raises(ValueError, match="widths differ"):
        one.join(other)


def test_watched_layer_gives_the_states_behind_the_logits(vlm: TransformersModel) -> None:
    branch = vlm.prefill(vlm.encode(turns_of(vlm)[:2]), GREEDY, hidden_layer=-1)
    for _ in range(2):
        assert branch.hidden is not None
        head = vlm.model.get_output_embeddings()
        scaling = getattr(vlm.model.config.get_text_config(), "final_logit_softcapping", None)
        if scaling is None:
            torch.testing.assert_close(head(branch.hidden).float(), branch.logits, **CLOSE)
        branch.step(branch.logits.argmax(-1))
    branch.watch(None)
    branch.step(branch.logits.argmax(-1))
    assert branch.hidden is None


def test_fork_is_independent(vlm: TransformersModel) -> None:
    branch = vlm.prefill(vlm.encode([turns_of(vlm)[0]]), GREEDY)
    before, left, right = branch.logits.clone(), branch.fork(), branch.fork()
    expected = greedy(left.fork(), 4)
    right.step(torch.tensor([9]))
    right.extend([[8, 10, 11]])
    right.logits.zero_()
    assert greedy(left, 4) == expected
    assert torch.equal(branch.logits, before)
    assert greedy(branch, 4) == expected


def test_select_keeps_rows_and_frees_the_rest(vlm: TransformersModel) -> None:
    turns = turns_of(vlm)
    branch = vlm.prefill(vlm.encode(turns), GREEDY)
    full, ids, logits = branch.nbytes, branch.ids, branch.logits
    assert branch.select([2, 0]) is branch
    assert branch.rows == 2
    assert branch.ids == [ids[2], ids[0]]
    assert torch.equal(branch.logits, logits[[2, 0]])
    assert branch.nbytes <= full * 2 / 3 + 1
    single = vlm.prefill(vlm.encode([turns[0]]), GREEDY)
    assert greedy(branch, 4)[1] == greedy(single, 4)[0]


def test_several_images(vlm: TransformersModel) -> None:
    turn = ask(LONG, picture(5), picture(6, (90, 40)))
    if vlm.family.max_images == 1:
        with pytest.raises(TemplateError, match="take 1 image, not 2"):
            vlm.encode([turn])
        return
    assert greedy(vlm.prefill(vlm.encode([turn]), GREEDY), 4)[0] == naive_greedy(vlm, turn, 4)
    other = ask(LONG, picture(6, (90, 40)), picture(5))
    assert differ(vlm, turn, other), "the order of the images must matter"


def test_image_in_history(vlm: TransformersModel) -> None:
    turn = history(picture(7))
    if vlm.family.layout == "plain":
        with pytest.raises(TemplateError, match="single questions"):
            vlm.encode([turn])
        return
    assert greedy(vlm.prefill(vlm.encode([turn]), GREEDY), 4)[0] == naive_greedy(vlm, turn, 4)
    assert differ(vlm, turn, history(picture(8)))


def test_image_in_tool_result(vlm: TransformersModel) -> None:
    if vlm.family.layout == "plain":
        pytest.skip("no roles")
    call = ToolCall("c1", "camera", {"at": "the wall"})
    turn = Turn(
        (
            TurnMessage("user", (TextPart("Look at the wall."),)),
            TurnMessage("assistant", (), (call,)),
            TurnMessage(
                "tool", (ImagePart(0), TextPart("a shot")), tool_call_id="c1", name="camera"
            ),
        ),
        (checked(picture(9), 2),),
    )
    assert greedy(vlm.prefill(vlm.encode([turn]), GREEDY), 3)[0] == naive_greedy(vlm, turn, 3)


def test_rows_without_images(vlm: TransformersModel) -> None:
    turns = [ask(LONG), ask(SHORT)]
    if not vlm.family.text_only:
        with pytest.raises(TemplateError, match="need an image"):
            vlm.encode(turns)
        return
    batch = vlm.prefill(vlm.encode(turns), GREEDY)
    for i, turn in enumerate(turns):
        torch.testing.assert_close(batch.logits[i], naive_logits(vlm, turn), **CLOSE)
    assert vlm.generate([turns[1]], GREEDY) == [
        vlm.vocabulary.decode(naive_greedy(vlm, turns[1], GREEDY.max_tokens))
    ]


def test_rows_with_different_numbers_of_images(vlm: TransformersModel) -> None:
    if vlm.family.max_images == 1:
        pytest.skip("one image a row")
    turns = [ask(SHORT, picture(1)), ask(LONG, picture(2), picture(3))]
    if vlm.family.even_images:
        with pytest.raises(ModelError, match="equally many images"):
            vlm.encode(turns)
        return
    batch = vlm.prefill(vlm.encode(turns), GREEDY)
    for i, turn in enumerate(turns):
        torch.testing.assert_close(batch.logits[i], naive_logits(vlm, turn), **CLOSE)


def test_interleaved_branches_equal_sequential_ones(vlm: TransformersModel) -> None:
    turns = turns_of(vlm)[1:]
    expected = [greedy(vlm.prefill(vlm.encode([turn]), GREEDY), 5)[0] for turn in turns]
    branches = [vlm.prefill(vlm.encode([turn]), GREEDY) for turn in turns]
    found: list[list[int]] = [[], []]
    for _ in range(5):
        for branch, tokens in zip(branches, found, strict=True):
            tokens.append(int(branch.logits[0].argmax()))
            branch.step(branch.logits.argmax(-1))
        vlm.generate([turns_of(vlm)[0]], Sampling(do_sample=False, max_tokens=2))
    assert found == expected


def test_seeded_sampling_equals_seeded_generate(vlm: TransformersModel) -> None:
    turn = turns_of(vlm)[0]
    sampling = Sampling(do_sample=True, temperature=0.8, top_p=0.9, max_tokens=8, seed=5)
    assert vlm.samples(sampling)
    branch = vlm.prefill(vlm.encode([turn]), sampling)
    generator, found = torch.Generator().manual_seed(5), []
    for _ in range(sampling.max_tokens):
        scores = branch.warp(branch.logits, [0])
        token = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
        found.append(int(token))
        if vlm.vocabulary.eos_ids.intersection(found):
            break
        branch.step(token)
    torch.manual_seed(77)
    state = torch.get_rng_state()
    assert vlm.generate([turn], sampling) == [vlm.vocabulary.decode(found)]
    assert torch.equal(torch.get_rng_state(), state), "the global random state must stay"


def test_second_view_at_working_size_has_the_same_tokens(vlm: TransformersModel) -> None:
    for seed, size in enumerate([(64, 48), (200, 50), (30, 45), (300, 310), (57, 171)]):
        image = picture(seed, size)
        width, height = vlm.working_size(image)
        second = image.resize(image.size if vlm.family.keeps_image_size else (width, height))
        prompts = vlm.encode([ask(SHORT, image), ask(SHORT, second)])
        assert prompts.ids[0] == prompts.ids[1]
        vlm.prefill(prompts, GREEDY)


def test_counts_and_cut_are_checked(vlm: TransformersModel) -> None:
    prompts: EncodedPrompts = vlm.encode(turns_of(vlm)[:2])
    assert vlm.count_tokens(prompts) == [len(ids) for ids in prompts.ids]
    with pytest.raises(ValueError, match="images whole"):
        prompts.cut([1, 1])
    with pytest.raises(ValueError, match="cannot cut"):
        prompts.cut([len(prompts.ids[0]) + 1, len(prompts.ids[1])])


def history(image: Any) -> Turn:
    """A follow-up question without an image, after an answer about one."""
    return Turn(
        (
            TurnMessage("user", (ImagePart(0), TextPart("describe the scene"))),
            TurnMessage("assistant", (TextPart("The image shows a kitchen."),)),
            TurnMessage("user", (TextPart("How do I sharpen this?"),)),
        ),
        (checked(image),),
    )


def differ(vlm: TransformersModel, left: Turn, right: Turn) -> bool:
    """Return whether two conversations are told apart."""
    logits: list[Tensor] = [
        vlm.prefill(vlm.encode([turn]), GREEDY).logits for turn in (left, right)
    ]
    return not torch.allclose(logits[0], logits[1], atol=1e-3)
