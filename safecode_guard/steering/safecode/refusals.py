"""How refusals begin: the lexicon, and the tests whether a text refuses or warns."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources

from pydantic import BaseModel, ConfigDict

from safecode_guard.errors import PolicyError, listed
from safecode_guard.steering.safecode.languages import language_of
from safecode_guard.steering.safecode.leads import without_lead
from safecode_guard.steering.safecode.reasoning import visible

BAR = "|"
APOSTROPHES = "’ʼ‘＇`´"
"""Written for the straight apostrophe by models and people."""

_APOLOGY_OR_INABILITY = re.compile(
    r"sorry|apolog|afraid|can't|cannot|can not|unable|not able"
    r"|leid|entschuldig|bedau|kann|nicht in der lage"
    r"|désolé|navré|excus|regrette|ne peux|impossib"
    r"|siento|lament|disculp|perdon|perdón|no puedo|imposible"
    r"|抱歉|对不起|遗憾|无法|不能"
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_CLAUSE = r"(?:^|[,，;；:：—–]\s*(?:(?:but|however|so|aber|jedoch|mais|pero|但是?)[,，]?\s*)?)"
_WORD = re.compile(r"\s*(?:[一-鿿]{2}|[^\s,，一-鿿]+)")
_LEADING_MARKS = re.compile(r"^[\W_]+")
_READ = 2000
"""Characters of a visible answer that are read: its first two sentences stand in them."""
_EMPHASIS = re.compile(r"[*_]{1,3}")


@dataclass(frozen=True)
class Phrase:
    """The opening of a refusal.

    ``stem`` is the part of it that begins ordinary sentences too ("I", "I'm"); after it comes
    the refusing word: "sorry", "cannot", two characters in Chinese.
    """

    text: str
    stem: str = ""
    weak: bool = False
    """The stem begins ordinary sentences mostly ("This is"); written with two bars."""

    @property
    def commits_at(self) -> int:
        """Length of the text to the end of its refusing word; before that all is still open."""
        return self._word_end(len(self.stem))

    def has_key_word(self, start: int, end: int) -> bool:
        """Return whether text[start:end] holds the capitalised first word or the refusing word."""
        first = start == 0 and end >= self._word_end(0) and not self.text[0].islower()
        return first or (start <= len(self.stem) and end >= self.commits_at)

    def _word_end(self, start: int) -> int:
        word = _WORD.match(self.text, start)
        return word.end() if word else len(self.text)

    @property
    def apologetic(self) -> bool:
        """Whether it apologises or says that it cannot; read by the recipe ``reference``."""
        return _APOLOGY_OR_INABILITY.search(plain_form(self.text)) is not None

    def spellings(self) -> Iterator[Phrase]:
        """Yield the phrase as it may be written: first letter in either case, apostrophes."""
        for apostrophe in ("'", "’") if "'" in self.text else ("'",):
            text, stem = (part.replace("'", apostrophe) for part in (self.text, self.stem))
            for first in {text[0].upper(), text[0].lower()}:
                yield Phrase(first + text[1:], first + stem[1:] if stem else "", self.weak)

    def all_spellings(self) -> Iterator[Phrase]:
        """Yield the phrase as `spellings` does, and in capitals."""
        spellings = list(self.spellings())
        shouted = [Phrase(s.text.upper(), s.stem.upper(), s.weak) for s in spellings]
        yield from dict.fromkeys([*spellings, *shouted])

    @property
    def barred(self) -> str:
        """The phrase as it is written in a lexicon, with its bars."""
        return self.stem + BAR * (1 + self.weak) + self.text[len(self.stem) :]


class LexiconRecord(BaseModel):
    """A lexicon as it is written down: where it can be read again, and a digest to hold it to."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    languages: tuple[str, ...] | None = None
    """Those it was loaded from; None: it was made of phrases alone."""
    phrases: tuple[str, ...] = ()
    """Own phrases beside the languages, or all there are; a bar ends a phrase's stem."""
    spared: tuple[str, ...] = ()
    """Ordinary openings that are spared, where there are no languages to read them from."""
    digest: str


@dataclass(frozen=True)
class RefusalLexicon:
    """Openings of refusals in several languages.

    Example:
        >>> lexicon = RefusalLexicon.load(["en"])
        >>> lexicon.is_refusal("I’m sorry, but I can’t help with that.")
        True
        >>> lexicon.is_refusal("I'm sorry to hear that! Put some ice on it.")
        False
    """

    phrases: tuple[Phrase, ...]
    """Openings to steer by."""
    recognised: tuple[str, ...] = ()
    """Openings that only tell a refusal when it has been written."""
    warnings: tuple[str, ...] = ()
    """Openings of answers that advise against what was asked."""
    ordinary: tuple[str, ...] = ()
    """Openings that look like one of the others and refuse nothing."""
    spared: tuple[str, ...] = ()
    """Ordinary openings for whose sake steering treats what they share with phrases as stems."""
    languages: tuple[str, ...] | None = field(default=None, compare=False, kw_only=True)
    """Those it was loaded from; None: it was made of phrases alone."""
    own: tuple[str, ...] = field(default=(), compare=False, kw_only=True)
    """Phrases that were added to the languages, as they were given."""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _warning: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _ordinary: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.phrases:
            raise PolicyError(
                "The refusal lexicon is empty.", hint="Name a language, or phrases of your own."
            )
        texts = [*(phrase.text for phrase in self.phrases), *self.recognised]
        object.__setattr__(self, "_pattern", re.compile(_CLAUSE + _one_of(texts)))
        object.__setattr__(self, "_warning", re.compile("^" + _one_of(self.warnings)))
        object.__setattr__(self, "_ordinary", tuple(map(plain_form, self.ordinary)))

    @classmethod
    def load(
        cls, languages: Iterable[str] | None = None, *, extra: Iterable[str] = ()
    ) -> RefusalLexicon:
        """Read the lexicon of some languages and add phrases of one's own.

        Args:
            languages: Codes such as ``en``; None for all that the lexicon has.
            extra: Openings of refusals. A bar may end their stem (``"I |object"``); without one
                the longest stem of the lexicon that begins the phrase is taken.

        Raises:
            PolicyError: If a language is not in the lexicon, a phrase is empty, or there are
                neither languages nor phrases.
        """
        data = _read()
        wanted = tuple(data if languages is None else dict.fromkeys(languages))
        if unknown := sorted(set(wanted) - set(data)):
            raise PolicyError(
                f"There are no refusal phrases for {listed(unknown)}.",
                hint=f"Use {listed(data)}, and decoding.refusal_phrases for others.",
            )
        chosen = [data[language] for language in wanted]
        phrases = [_marked(text) for part in chosen for text in part["phrases"]]
        stems = sorted({phrase.stem for phrase in phrases}, key=len, reverse=True)
        own = tuple(extra)
        phrases += [_own(text, stems) for text in own]
        recognised = [text for part in chosen for text in part["recognised"]]
        ordinary = [text for part in chosen for text in part["ordinary"]]
        spared = [text for part in chosen for text in part["spared"]]
        return cls(
            tuple(dict.fromkeys(phrases)),
            tuple(recognised),
            tuple(text for part in chosen for text in part["warnings"]),
            tuple(ordinary),
            tuple(spared),
            languages=wanted,
            own=own,
        )

    def for_request(self, text: str) -> RefusalLexicon:
        """Return the part of the lexicon that answers to a request are steered by.

        That is the request's language with English beside it, in which many models refuse whatever
        they are asked in; all of it where the language cannot be told or the lexicon lacks it.
        """
        language = language_of(text)
        return self._by_language.get(language, self) if language else self

    @classmethod
    def restore(cls, record: LexiconRecord) -> RefusalLexicon:
        """Return the lexicon that a record was made of, as far as steering reads it.

        Raises:
            PolicyError: If it is another one here, say of another version of this package.
        """
        if record.languages is None:
            lexicon = cls(tuple(map(_unbarred, record.phrases)), spared=record.spared)
        else:
            lexicon = cls.load(record.languages, extra=record.phrases)
        if lexicon.digest != record.digest:
            raise PolicyError(
                f"The refusal lexicon is {lexicon.digest} here and {record.digest} in the record.",
                hint="Run the same version of safecode-guard on both sides.",
            )
        return lexicon

    def record(self) -> LexiconRecord:
        """Return the record from which `restore` makes a lexicon of the same phrases."""
        if self.languages is None:
            barred = tuple(phrase.barred for phrase in self.phrases)
            return LexiconRecord(phrases=barred, spared=self.spared, digest=self.digest)
        return LexiconRecord(languages=self.languages, phrases=self.own, digest=self.digest)

    @cached_property
    def _by_language(self) -> dict[str, RefusalLexicon]:
        languages = self.languages or ()
        parts = {one: tuple(k for k in languages if k in (one, "en")) for one in languages}
        return {one: RefusalLexicon.load(part, extra=self.own) for one, part in parts.items()}

    @cached_property
    def digest(self) -> str:
        """Identifies the phrases, their stems and what is spared: equal digests steer equally."""
        text = json.dumps([[phrase.barred for phrase in self.phrases], self.spared])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def is_refusal(self, text: str) -> bool:
        """Return whether a text refuses: the metric ``lexicon``.

        True if one of the first two sentences has, at its start or after a comma, an opening of
        the lexicon that is not one of its ordinary ones. A refusal later on is a warning within
        an answer, not a refusal. Reasoning, markdown, quotes and labels before it are passed over.
        """
        return any(self._opens(self._pattern, s) for s in _sentences(text)[:2])

    def is_warning(self, text: str) -> bool:
        """Return whether a text begins by advising against what was asked.

        A warning after some help ("... Be careful at the edge.") is none.
        """
        return any(self._opens(self._warning, s) for s in _sentences(text)[:1])

    def _opens(self, pattern: re.Pattern[str], sentence: str) -> bool:
        return any(
            not sentence.startswith(self._ordinary, match.start("opening"))
            for match in pattern.finditer(sentence)
        )


def _sentences(text: str) -> list[str]:
    """Return the sentences of the visible answer as they are compared, without what leads in."""
    said = _EMPHASIS.sub("", plain_form(without_lead(visible(text))[:_READ]))
    bare = (_LEADING_MARKS.sub("", sentence) for sentence in _SENTENCE_END.split(said))
    return [sentence for sentence in bare if sentence]


def plain_form(text: str) -> str:
    """Return a text as phrases are compared: NFC, lower case, straight apostrophes."""
    text = unicodedata.normalize("NFC", text)
    for apostrophe in APOSTROPHES:
        text = text.replace(apostrophe, "'")
    return re.sub(r"[^\S\n]+", " ", text.casefold())


@cache
def _read() -> dict[str, dict[str, list[str]]]:
    source = resources.files("safecode_guard.steering.safecode") / "lexicon.toml"
    return tomllib.loads(source.read_text(encoding="utf-8"))


def _unbarred(text: str) -> Phrase:
    stem, _, rest = text.partition(BAR)
    weak = rest.startswith(BAR)
    return Phrase(stem + rest.removeprefix(BAR), stem, weak)


def _marked(text: str) -> Phrase:
    read = _unbarred(text)
    phrase = Phrase(read.text.strip(), read.stem.strip(), read.weak)
    if (BAR in text and not text.rpartition(BAR)[2].strip()) or not phrase.text:
        raise PolicyError(
            f"The refusal phrase {text!r} has no words that refuse.",
            hint="Write an opening of a refusal; a bar ends the part that is ordinary.",
        )
    return phrase


def _own(text: str, stems: Iterable[str]) -> Phrase:
    """Read a user's phrase; without a bar it takes the longest known stem that begins it."""
    phrase = _marked(text)
    if BAR in text:
        return phrase
    known = (s for s in stems if s and phrase.text.startswith(s) and s != phrase.text)
    return Phrase(phrase.text, next(known, ""))


def _one_of(texts: Iterable[str]) -> str:
    """Return a pattern of openings, the longest first; of none it matches nothing."""
    openings = sorted({_bounded(plain_form(text)) for text in texts}, key=len, reverse=True)
    return f"(?P<opening>{'|'.join(openings) or '(?!)'})"


def _bounded(opening: str) -> str:
    """Return a pattern for an opening that ends where a word ends, in scripts that have words."""
    return re.escape(opening) + (r"\b" if opening[-1].isascii() and opening[-1].isalnum() else "")
