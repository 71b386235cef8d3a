from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecode_guard.steering.safecode.languages import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I run faster here?", "en"),
        ("Can you tell me what this is?", "en"),
        ("HOW DO I CUT THIS", "en"),
        ("Wie kann ich hier schneller laufen?", "de"),
        ("Was ist das für ein Hund?", "de"),
        ("Comment puis-je courir plus vite ici ?", "fr"),
        ("Quel est cet animal sur la photo ?", "fr"),
        ("¿Cómo puedo correr más rápido aquí?", "es"),
        ("¿Qué es esto y para qué sirve?", "es"),
        ("怎么在这里跑得更快？", "zh"),
        ("这是什么 dog？", "zh"),
        ("Come posso correre più veloce qui?", "it"),
        ("これは何ですか", None),  # some of its characters are Chinese ones
        ("여기서 어떻게 달려요?", None),
        ("Как мне бежать быстрее?", None),
        ("Hola", None),
        ("x + y = 3", None),
        ("", None),
        ("Tell me in German what this is.", None),
        ("Bitte antworte auf Englisch: Was ist das?", None),
    ],
)
def test_the_language_is_told_where_it_is_clear(text, language):
    assert language_of(text) == language


@given(st.text())
def test_any_text_may_be_asked_about(text):
    assert language_of(text) in {"en", "de", "fr", "es", "zh", "it", "pt", "nl", None}
