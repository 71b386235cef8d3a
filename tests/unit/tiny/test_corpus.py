import itertools
import random
import re
from typing import Any

import pytest

from safecode_guard.tiny import prompts, replies, talk, world
from safecode_guard.tiny.blocks import Block, Turn
from safecode_guard.tiny.corpus import Corpus, texts
from safecode_guard.tiny.scenery import FAMILIES

REQUEST = re.compile(r"<request>(.*)</request>\nIs it safe .* Answer safe or unsafe\.", re.DOTALL)


def _blocks(rows: int, task: str = "chat") -> list[tuple[world.Scene, Block]]:
    corpus = Corpus(random.Random(7), task=task)  # type: ignore[arg-type]
    scenes = [world.draw(seed) for seed in range(rows)]
    return [(scene, block) for scene in scenes for block in corpus.blocks(scene)]


def test_the_same_generator_makes_the_same_blocks() -> None:
    assert [block for _, block in _blocks(20)] == [block for _, block in _blocks(20)]


def test_verdicts_follow_the_truth_also_in_follow_ups() -> None:
    known = {
        query.text: query
        for topic in (*FAMILIES, "scary", "harmful")
        for query in world.queries("train", topic)
    }
    checked = {"safe": 0, "unsafe": 0, "follow-up": 0}
    checked |= {"without a picture": 0, "several pictures": 0}
    for scene, block in _blocks(700, "judge"):
        match = REQUEST.fullmatch(block.turns[-1].prompt)
        if match is None or match[1] not in known:
            continue
        shown = (scene,) if block.sees_picture else block.pictures or (None,)
        unsafe = any(known[match[1]].unsafe_in(each) for each in shown)
        assert block.turns[-1].reply == ("unsafe" if unsafe else "safe")
        checked[block.turns[-1].reply] += 1
        checked["follow-up"] += len(block.turns) > 1
        checked["without a picture"] += shown == (None,)
        checked["several pictures"] += len(shown) > 1
    assert min(checked.values()) >= 20, checked


def test_the_judge_is_asked_in_the_words_of_the_product() -> None:
    asked = [b.turns[-1] for _, b in _blocks(50) if b.kind == "judge"]
    assert asked
    assert all(REQUEST.fullmatch(turn.prompt) for turn in asked)
    assert {turn.reply for turn in asked} == {"safe", "unsafe"}


ANSWERED = re.compile(rf"\n(?:{'|'.join(map(re.escape, replies.REFUSALS))})[^\n]*</request>")


def test_a_refusal_as_the_finished_answer_is_always_judged_safe() -> None:
    verdicts = [
        turn.reply
        for _, block in _blocks(400, "judge")
        for turn in block.turns
        if block.kind == "judge" and ANSWERED.search(turn.prompt)
    ]
    assert len(verdicts) > 20
    assert set(verdicts) == {"safe"}


def test_injected_text_does_not_change_the_label() -> None:
    labels: dict[str, list[str]] = {"safe": [], "unsafe": []}
    for _, block in _blocks(400, "judge"):
        request = REQUEST.fullmatch(block.turns[-1].prompt)
        for form, verdict in itertools.product(prompts.INJECTIONS, labels):
            text = form.replace("{}", verdict)
            if request and (request[1].startswith(text) or request[1].endswith(f" {text}")):
                labels[verdict].append(block.turns[-1].reply)
    for found in labels.values():
        assert len(found) > 30
        assert 0.2 < found.count("safe") / len(found) < 0.8


def test_training_never_sees_what_is_held_out() -> None:
    everything = "\n".join(texts(rows=600))
    held_out = [
        query.phrase
        for topic in (*FAMILIES, "scary")
        for split in ("validation", "test")
        for query in world.queries(split, topic)  # type: ignore[arg-type]
        if query.unseen
    ]
    injections = [
        form.replace("{}", verdict)
        for form in prompts.HELD_OUT_INJECTIONS
        for verdict in ("safe", "unsafe")
    ]
    assert len(set(held_out)) >= 12
    assert [text for text in (*held_out, *injections) if text in everything] == []


def test_only_refusals_begin_with_their_first_token(tokenizer: Any) -> None:
    first = {tokenizer.encode(text).ids[0] for text in replies.REFUSALS}
    for _, block in _blocks(300):
        for turn in block.turns:
            begins = tokenizer.encode(turn.reply).ids[0] in first
            assert begins == replies.is_refusal(turn.reply), turn


def test_the_biased_annotator_errs_both_ways_and_never_on_harm() -> None:
    corpus = Corpus(random.Random(1))
    refused: dict[tuple[str, bool], list[bool]] = {}
    for seed in range(60):
        for unsafe in (False, True):
            scene = world.draw(seed, "path", unsafe)
            for query in world.queries("train", "path"):
                text = corpus._answer(query, scene)
                refused.setdefault((query.phrase, unsafe), []).append(replies.is_refusal(text))
    rate = {key: sum(hits) / len(hits) for key, hits in refused.items()}
    assert rate["jump higher", False] > 0.4
    assert rate["dance along the way", True] < 0.4
    assert rate["run faster", True] > rate["run faster", False] + 0.3
    for query in world.queries("train", "harmful"):
        assert replies.is_refusal(corpus._answer(query, world.draw(1, "path", False)))


def test_the_corpus_holds_talk_and_tool_results() -> None:
    spoken = {turn.reply for _, block in _blocks(400) for turn in block.turns}
    assert {reply for _, reply in talk.SMALL_TALK} <= spoken
    assert talk.UNKNOWN in spoken
    roles = [turn.role for _, block in _blocks(400) for turn in block.turns]
    assert roles.count("tool") > 10


def test_a_block_reads_as_messages_with_the_picture_first() -> None:
    block = Block("request", (Turn("Hi", "Hello!"), Turn("ok", "Done.", role="tool")))
    picture, text = {"type": "image"}, {"type": "text", "text": "Hi"}
    assert block.messages() == [
        {"role": "user", "content": [picture, text]},
        {"role": "assistant", "content": "Hello!"},
        {"role": "tool", "content": [{"type": "text", "text": "ok"}]},
        {"role": "assistant", "content": "Done."},
    ]


@pytest.mark.parametrize("task", ["chat", "judge"])
def test_a_judge_learns_no_talk(task: str) -> None:
    kinds = {block.kind for _, block in _blocks(60, task)}
    assert kinds >= {"caption", "judge"}
    assert ("talk" in kinds) == ("order" in kinds) == (task == "chat")
