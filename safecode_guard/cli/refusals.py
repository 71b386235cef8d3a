"""``safecode-guard refusals``: what the refusal lexicon is worth on a model's tokenizer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from safecode_guard.cli import screen
from safecode_guard.cli.options import AsJson, Model
from safecode_guard.engines.presence import require_reachable
from safecode_guard.errors import ModelError

if TYPE_CHECKING:
    from safecode_guard.steering.safecode.coverage import Coverage

Languages = Annotated[
    list[str] | None,
    typer.Option("--language", "-l", metavar="CODE", help="en, de ...; may be repeated."),
]
Phrases = Annotated[
    list[str] | None,
    typer.Option("--phrase", metavar="TEXT", help="A phrase of your own; may be repeated."),
]


def refusals(
    model: Model = None,
    language: Languages = None,
    phrase: Phrases = None,
    as_json: AsJson = False,
) -> None:
    """Show how refusals begin in a model's tokens; loads its tokenizer and no weights.

    Roots are first tokens. One that mostly begins ordinary words is not pushed: the tokens behind
    it carry the phrase.
    """
    # behind a door: they load torch and transformers
    from safecode_guard.steering.safecode.coverage import Coverage
    from safecode_guard.steering.safecode.refusals import RefusalLexicon
    from safecode_guard.steering.safecode.trie import RefusalTrie

    with screen.working("Reading the tokenizer ..."):
        lexicon = RefusalLexicon.load(language or None, extra=phrase or ())
        found = Coverage.of(RefusalTrie.build(lexicon, _vocabulary(model)))
    if as_json:
        screen.print_json(asdict(found))
    else:
        _show(found, len(lexicon.phrases))


def _vocabulary(model: str | None) -> Any:
    from transformers import AutoTokenizer

    from safecode_guard.engines.transformers.vocabulary import TokenizerVocabulary
    from safecode_guard.tiny.load import weights_path

    if model is not None:
        require_reachable(model)
    name = model or str(weights_path("chat"))
    try:
        return TokenizerVocabulary(AutoTokenizer.from_pretrained(name))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"No tokenizer can be read from {name!r}.",
            hint="Name a directory with a tokenizer.json, or a model that is in the cache.",
        ) from error


def _show(found: Coverage, phrases: int) -> None:
    table = Table(title="First tokens of refusals", title_justify="left")
    for column in ("root", "tokens", "ordinary words", "pushed"):
        table.add_column(column, justify="left" if column == "root" else "right")
    for root in found.roots:
        share = f"{100 * root.ordinary:.0f} %"
        table.add_row(repr(root.text), str(root.tokens), share, "yes" if root.pushed else "no")
    screen.out.print(table)
    written = phrases - len(found.unwritten)
    screen.out.print(f"{written} of {phrases} phrases can be written.", markup=False)
    for text in found.unwritten:
        screen.out.print(f"  cannot be written: {text}", markup=False)
    for word, token in found.uncovered:
        screen.out.print(f"  first token not pushed: {token!r} of {word!r}", markup=False)
