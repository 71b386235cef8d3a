"""The language of a request, as far as it can be told from script and stop words.

It is told only among the lexicon's languages and only where it is clear: two stop words of one
language, and twice as many as of any other. A request that names a language ("answer in German")
is told of none.
"""

from __future__ import annotations

import re
from typing import Final

_STOP_WORDS: Final[dict[str, str]] = {
    "en": "the a an is are was do does did i my me you your it this that what how can could would "
    "should of to in on for with and or not there here where when why which who please we they "
    "he she be have has tell write give from if at as about",
    "de": "der die das ein eine einen ist sind war wie was ich du sie er wir ihr mein meine mich "
    "mir kann kannst soll darf muss hier dort und oder nicht mit auf für von zu zum zur den dem "
    "des bitte wo wann warum welche wer man auch es im am bei aus hat haben sich wenn",
    "fr": "le la les un une des est sont je tu il elle nous vous mon ma mes ce cette ces que quoi "
    "comment peux puis peut dois ici là et ou pas avec sur pour de du au aux en dans qui quand "
    "pourquoi quel quelle plaît moi me se ne plus faire votre y",
    "es": "el la los las un una unos es son está yo tú él ella nosotros mi mis este esta esto que "
    "qué cómo puedo puede debo aquí allí y o no con en para por de del al lo quién cuándo dónde "
    "cuál favor me se su muy hay más hacer ser como",
    # told apart from the others, and of no lexicon
    "it": "il lo gli un una è sono io tu mio mia questo questa che cosa come posso può devo qui e "
    "non con su per di del della dei nel chi quando dove perché quale mi si ho ha più al",
    "pt": "o os as um uma é são eu você meu minha este esta isto que como posso pode devo aqui e "
    "não com em no na para por de do da dos quem quando onde qual me se mais ao fazer",
    "nl": "de het een is zijn ik jij je mijn dit dat wat hoe kan mag moet hier en of niet met op "
    "voor van naar wie wanneer waar waarom welke er te aan om ook",
}
_SETS: Final = {code: frozenset(words.split()) for code, words in _STOP_WORDS.items()}
_NAMED: Final = re.compile(
    r"\b(english|german|french|spanish|chinese|mandarin|englisch|deutsch|französisch|spanisch"
    r"|chinesisch|anglais|allemand|français|espagnol|chinois|inglés|alemán|francés|español|chino"
    r"|castellano)\b|英[语文]|德[语文]|法[语文]|西班牙[语文]|中文|汉语"
)
_IDEOGRAPH: Final = re.compile(r"[㐀-鿿]")
_LETTER: Final = re.compile(r"[^\W\d_]")
_OTHER_SCRIPT: Final = re.compile(r"[぀-ヿ가-힯]")
_MOST_CHARACTERS: Final = 4000
"""Of a long request the end is read: it holds the question."""


def language_of(text: str) -> str | None:
    """Return the language of a text (``en``, ``de``, ``fr``, ``es``, ``zh``, or one of three
    neighbours), None where it cannot be told.

    Example:
        >>> language_of("How do I run faster here?"), language_of("Hola"), language_of("这是什么？")
        ('en', None, 'zh')
    """
    text = text[-_MOST_CHARACTERS:].casefold()
    if _NAMED.search(text) or _OTHER_SCRIPT.search(text):
        return None
    letters, ideographs = len(_LETTER.findall(text)), len(_IDEOGRAPH.findall(text))
    if ideographs:
        return "zh" if 3 * ideographs >= letters else None
    return _by_stop_words(re.findall(r"[^\W\d_]+", text))


def _by_stop_words(words: list[str]) -> str | None:
    counts = {code: sum(word in known for word in words) for code, known in _SETS.items()}
    best, second = sorted(counts, key=lambda code: -counts[code])[:2]
    clear = counts[best] >= 2 and counts[best] >= 2 * counts[second]
    return best if clear else None
