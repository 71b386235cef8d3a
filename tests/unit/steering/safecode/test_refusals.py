from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.errors import PolicyError
from safecode_guard.policy import DecodingPolicy, Policy
from safecode_guard.steering.safecode.refusals import Phrase, RefusalLexicon, plain_form

LEXICON = RefusalLexicon.load()

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I can’t help with that.",
    '  "I cannot assist with this request."',
    "**I'm unable to help with that.**",
    "Sorry, I can't help with that. It is not safe.",
    "That is a beautiful view! I'm sorry, but I can't advise running there.",
    "I see why you ask, but I can't help you do this.",
    "I'm sorry to hear that you are upset, but I can't help with that.",
    "Unfortunately, I cannot provide instructions for this.",
    "As an AI language model, I cannot help.",
    "I must decline.",
    "I will not help with this.",
    "My apologies, but I can't do that.",
    "This request violates my rules.",
    "i can not do this",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Leider kann ich Ihnen das nicht erklären.",
    "Ich kann Ihnen dabei nicht helfen.",
    "Das kann ich nicht tun.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Je suis de\u0301sole\u0301, mais je ne peux pas vous aider.",
    "Je ne peux pas répondre à cette demande.",
    "Je m’excuse, mais je ne peux pas.",
    "En tant qu'IA, je ne peux pas faire cela.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "No puedo ayudarte con eso.",
    "Por desgracia, no puedo ayudarte.",
    "抱歉，我无法协助您完成这个请求。",
    "很抱歉，但我不能这样做。",
    "我无法提供这方面的帮助。",
    "这很危险，我不能帮助你。",
]

ANSWERS = [
    "",
    "Sure! To run faster here, lean forward.",
    "I see a dog on the beach.",
    "I'm happy to help! First, warm up.",
    "I can help with that.",
    "I'm sorry to hear that! Put some ice on it.",
    "I can't wait to see the result! Start with the top.",
    "I cannot see any danger in this picture.",
    "As you can see, the kitchen is tidy.",
    "The sign reads “Sorry we are closed”.",
    "Sorrylike words are no refusal.",
    "Carve it from the top. Use a small saw. Go slowly. I can't stress this enough.",
    "Boil the water. Add the pasta. I cannot tell how many people you cook for.",
    "Ich kann Ihnen dabei helfen.",
    "Es tut mir leid, das zu hören. Kühlen Sie die Stelle.",
    "Je vois un chien sur la plage.",
    "Je suis désolé pour votre perte. Voici un texte.",
    "No es un problema: corta la calabaza por arriba.",
    "Lo mejor es empezar por arriba.",
    "我看到一只狗在海滩上。",
    "我很抱歉听到这个消息。先休息一下。",
]


HARMLESS = [
    "Unfortunately, the photo is blurry",
    "Unfortunately the picture is dark",
    "Sorry to hear that",
    "I'm sorry to hear that",
    "I'm sorry, but the photo is blurry",
    "Sorry for the delay",
    "I am not sure which dog you mean",
    "As you can see there is a dog",
    "I can help with that",
    "No, that is a cat",
    "Don't worry",
    "Es tut mir leid, das Bild ist unscharf",
    "Leider ist das Bild unscharf",
    "Malheureusement, la photo est floue",
    "Désolé pour le retard",
    "Lo siento por la confusión",
    "Lamentablemente, la foto es borrosa",
    "很抱歉听到这个消息",
    "遗憾的是，照片很模糊",
]
WARNINGS = [
    "Please don't run here.",
    "**Do not** climb that ladder!",
    "It's not safe to swim here. Wait for the lifeguard.",
    "<think>They want to swim.</think>\nThat would be dangerous.",
    "Bitte tun Sie das nicht.",
    "Das ist gefährlich.",
    "C’est dangereux.",
    "Es peligroso nadar aquí.",
    "这很危险。",
]
_MARKS = ["", "**", "> ", "- ", "• ", '"', "“", "«", "# ", "🛑 ", "1. ", "\n", "_"]
_LABELS = ["", "Answer: ", "**Final Answer:** ", "Response:\n", "Antwort: ", "回答："]
_THOUGHTS = st.text("abc I'm sorry, I can't.\n", max_size=60)


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    """What may stand before an answer: reasoning of any words, a mark, a label, a mark."""
    thought = f"<think>{draw(_THOUGHTS)}</think>\n" if draw(st.booleans()) else ""
    parts = [draw(st.sampled_from(each)) for each in (_MARKS, _LABELS, _MARKS)]
    return thought + "".join(parts)


@given(prefixes(), st.sampled_from(LEXICON.phrases), st.booleans(), st.booleans())
def test_a_refusal_is_one_behind_any_prefix(prefix, phrase, curly, shouted):
    text = phrase.text.replace("'", "’") if curly else phrase.text
    assert LEXICON.is_refusal(prefix + (text.upper() if shouted else text))


@given(prefixes(), st.sampled_from(HARMLESS), st.sampled_from([".", "!", "", ". Lean forward."]))
def test_a_harmless_opening_is_no_refusal_behind_any_prefix(prefix, opening, end):
    assert not LEXICON.is_refusal(prefix + opening + end)
    assert not LEXICON.is_warning(prefix + opening + end)


@given(prefixes(), st.sampled_from(WARNINGS))
def test_a_warning_is_one_behind_any_prefix(prefix, text):
    text = text.partition("</think>\n")[2] or text
    assert LEXICON.is_warning(prefix + text)


def test_a_refusal_is_found_behind_long_reasoning_and_long_texts_cost_nothing():
    thought = "They ask, and ask, " * 20_000
    began = time.process_time()
    assert LEXICON.is_refusal(f"<think>{thought}</think>I cannot help with that.")
    assert not LEXICON.is_refusal("word, " * 200_000)
    assert time.process_time() - began < 1


@given(st.text("abcdefgh .,!?\n*_", max_size=80))
def test_what_only_reasoning_says_is_no_refusal(answer):
    thought = "I'm sorry, but I can't help with that. It is dangerous."
    assert not LEXICON.is_refusal(f"<think>{thought}</think>{answer}")
    assert not LEXICON.is_refusal(f"<think>{thought}")  # the answer has not begun


@pytest.mark.parametrize("text", WARNINGS)
def test_warnings_are_recognised_and_are_no_refusals(text):
    assert LEXICON.is_warning(text)
    assert not LEXICON.is_refusal(text)


@pytest.mark.parametrize("opening", LEXICON.warnings)
def test_every_warning_of_the_lexicon_is_one(opening):
    assert LEXICON.is_warning(opening + " x")


@pytest.mark.parametrize(
    "text",
    ["", "Sure! Lean forward. Do not slip.", "Run. It is dangerous.", "Donut shops are near."],
)
def test_help_is_no_warning(text):
    assert not LEXICON.is_warning(text)


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_are_recognised(text):
    assert LEXICON.is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_not(text):
    assert not LEXICON.is_refusal(text)


def test_the_guards_own_refusal_is_one():
    assert LEXICON.is_refusal(Policy().refusal_text)


@pytest.mark.parametrize("phrase", LEXICON.phrases, ids=lambda phrase: phrase.text)
def test_every_phrase_is_a_refusal_in_every_spelling(phrase):
    assert all(LEXICON.is_refusal(spelling.text) for spelling in phrase.spellings())


@pytest.mark.parametrize("text", LEXICON.recognised)
def test_every_recognised_opening_is_a_refusal(text):
    assert LEXICON.is_refusal(text)


@pytest.mark.parametrize("text", LEXICON.ordinary)
def test_every_ordinary_opening_is_needed_and_works(text):
    without = RefusalLexicon(LEXICON.phrases, LEXICON.recognised, LEXICON.warnings)
    assert without.is_refusal(text) or without.is_warning(text)
    assert not LEXICON.is_refusal(text)
    assert not LEXICON.is_warning(text)


def test_languages_are_those_of_the_policy():
    named = RefusalLexicon.load(DecodingPolicy().refusal_languages)
    assert named == LEXICON
    assert RefusalLexicon.load(["de", "de"]) == RefusalLexicon.load(["de"])


def test_one_language_knows_no_other():
    assert not RefusalLexicon.load(["de"]).is_refusal("I cannot help.")


def test_own_phrases_are_added():
    lexicon = RefusalLexicon.load(["en"], extra=["Nope|", "I object to", "We |shall not"][1:])
    assert lexicon.is_refusal("I object to this.")
    own = {phrase.text: phrase.stem for phrase in lexicon.phrases}
    assert own["I object to"] == "I"
    assert own["We shall not"] == "We"


@pytest.mark.parametrize("text", ["", "  ", "I |", "|"])
def test_a_phrase_without_a_refusing_word_is_refused(text):
    with pytest.raises(PolicyError, match="refusal phrase"):
        RefusalLexicon.load(["en"], extra=[text])


def test_an_unknown_language_is_refused_by_name():
    with pytest.raises(PolicyError, match=r"'xx'.*'zh'"):
        RefusalLexicon.load(["en", "xx"])


def test_an_empty_lexicon_is_refused():
    with pytest.raises(PolicyError, match="empty"):
        RefusalLexicon.load([])


def test_phrases_alone_will_do():
    assert RefusalLexicon.load([], extra=["Nein danke"]).is_refusal("Nein danke, lieber nicht.")


def test_spellings():
    spelled = {s.text for s in Phrase("I'm sorry", "I'm").spellings()}
    assert spelled == {"I'm sorry", "i'm sorry", "I’m sorry", "i’m sorry"}
    assert {s.stem for s in Phrase("I'm sorry", "I'm").spellings()} == {"I'm", "i'm", "I’m", "i’m"}
    assert [s.text for s in Phrase("抱歉").spellings()] == ["抱歉"]


@pytest.mark.parametrize(
    ("text", "stem", "until"),
    [
        ("I cannot help", "I", "I cannot"),
        ("I can't help", "I can", "I can't"),
        ("Sorry, I", "", "Sorry"),
        ("我无法协助", "我", "我无法"),
        ("Es tut mir leid", "Es", "Es tut"),
    ],
)
def test_where_a_phrase_commits(text, stem, until):
    assert Phrase(text, stem).commits_at == len(until)


def test_plain_form():
    assert plain_form("I’M\u00a0 Sorry") == "i'm sorry"


def test_apologetic_phrases():
    assert Phrase("I'm sorry").apologetic
    assert Phrase("我无法协助").apologetic
    assert not Phrase("I must decline").apologetic
