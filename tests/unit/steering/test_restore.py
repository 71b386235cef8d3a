"""From a record back to steering; that both steer alike is `tests.contract.test_strategy`'s."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from safecode_guard.errors import PolicyError
from safecode_guard.steering.restore import RESTORABLE, restore
from safecode_guard.steering.safecode.refusals import LexiconRecord, Phrase, RefusalLexicon
from safecode_guard.steering.safecode.trie import RefusalTrie
from safecode_guard.steering.safecode.tries import Tries
from tests.unit.steering.contexts import PICTURE, context, safecode, step
from tests.unit.steering.vocabularies import byte_level

VOCABULARY = byte_level()


def record(label="unsafe", **decoding):
    return dict(safecode(**decoding).record(context(VOCABULARY, label)))


def test_the_second_view_is_the_callers_and_the_contrast_the_records():
    logits = torch.randn((2, VOCABULARY.size), generator=torch.Generator().manual_seed(3))
    with_view = restore("safecode", record(), vocabulary=VOCABULARY, second=PICTURE)
    without = restore("safecode", record(), vocabulary=VOCABULARY)
    assert (with_view.second, without.second) == (PICTURE, None)
    assert torch.equal(with_view.adjust(step(logits)), without.adjust(step(logits)))
    assert not torch.equal(without.adjust(step(logits)), without.adjust(step(logits[:1])))


def test_tries_that_are_kept_are_built_once(monkeypatch):
    tries, built, build = Tries(), [], RefusalTrie.build
    monkeypatch.setattr(RefusalTrie, "build", lambda *given: built.append(given) or build(*given))
    for _ in range(3):
        restore("safecode", record(), vocabulary=VOCABULARY, tries=tries)
    assert len(built) == 1


@pytest.mark.parametrize("name", ["plain", "verdict_prompt", "own-1"])
def test_other_strategies_are_not_restored(name):
    assert name not in RESTORABLE
    with pytest.raises(PolicyError, match=rf"'{name}' cannot be restored"):
        restore(name, {}, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": "other"}, "recipe"),
        ({"steps": 0}, "steps"),
        ({"surprise": 1}, "surprise"),
        ({"alpha": float("nan")}, "alpha"),
        ({"quirks": ["fly"]}, "quirks"),
        ({"normalise": None}, "lacks normalise"),
        ({"seed": None}, "lacks seed"),
        ({"sigma": None}, "lacks sigma"),
        ({"top_k": None}, "lacks top_k"),
        ({"lexicon": None}, "lacks lexicon"),
        ({"push": -1.0}, "contradict"),
        ({"direction": "suppress"}, "contradict"),
    ],
)
def test_a_record_with_a_gap_or_a_surprise_is_refused(change, said):
    with pytest.raises(PolicyError, match=f"record of the strategy 'safecode' is wrong.*{said}"):
        restore("safecode", record() | change, vocabulary=VOCABULARY)


def test_an_empty_record_is_refused():
    with pytest.raises(PolicyError, match="recipe, direction, steps"):
        restore("safecode", {}, vocabulary=VOCABULARY)


def test_a_lexicon_of_another_version_is_refused():
    lexicon = record()["lexicon"] | {"digest": "0" * 16}
    with pytest.raises(PolicyError, match=r"0{16} in the record.*same version"):
        restore("safecode", record() | {"lexicon": lexicon}, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    "lexicon",
    [
        RefusalLexicon.load(),
        RefusalLexicon.load(["zh", "en"], extra=["Nay, |never", "I object"]),
        RefusalLexicon.load([], extra=["Nein danke"]),
        RefusalLexicon((Phrase("I must not", "I"), Phrase("Never"), Phrase("我不能", "我"))),
    ],
)
def test_a_lexicon_is_read_again_from_its_record(lexicon):
    written = LexiconRecord.model_validate_json(lexicon.record().model_dump_json())
    assert RefusalLexicon.restore(written).phrases == lexicon.phrases


def test_the_digest_tells_stems_apart():
    texts = RefusalLexicon((Phrase("I must not", "I"),)), RefusalLexicon((Phrase("I must not"),))
    assert texts[0].digest != texts[1].digest


def test_factory_and_restore_load_no_torch_before_they_have_to():
    code = (
        "import sys, safecode_guard.steering.factory, safecode_guard.steering.restore,"
        "safecode_guard.steering.trace, safecode_guard.steering.safecode.parameters,"
        "safecode_guard.steering.safecode.record, safecode_guard.steering.safecode.refusals;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
