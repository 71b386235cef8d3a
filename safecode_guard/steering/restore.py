"""From a record back to the steering of an answer, for engines that run strategies themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from safecode_guard.errors import PolicyError, listed
from safecode_guard.models.protocol import LogitsStrategy, Vocabulary
from safecode_guard.turns.turn import Turn

if TYPE_CHECKING:
    from safecode_guard.steering.safecode.tries import Tries

RESTORABLE: Final = frozenset({"safecode"})
"""Ids of the strategies whose records can be restored: for an engine's `Abilities.records`."""


def restore(
    strategy_id: str,
    record: Mapping[str, Any],
    *,
    vocabulary: Vocabulary,
    second: Turn | None = None,
    tries: Tries | None = None,
) -> LogitsStrategy:
    """Return the steering that a strategy's record describes: equal records, equal steering.

    Args:
        strategy_id: ``Strategy.id``.
        record: What ``Strategy.record`` returned, through JSON or not.
        vocabulary: Of the same tokens as where the record was made.
        second: The turn with second views of its pictures. An engine that is sent both views
            leaves it out: whether they are contrasted is in the record.
        tries: Kept by the caller, so that a vocabulary's trie is built once and not for each
            answer.

    Raises:
        PolicyError: If there is no such strategy, or the record is none of its own.
    """
    if strategy_id not in RESTORABLE:
        raise PolicyError(
            f"The strategy {strategy_id!r} cannot be restored from its record.",
            hint=f"Records of {listed(RESTORABLE)} can; others run as objects.",
        )
    return _safecode(record, vocabulary, second, tries)


def _safecode(
    data: Mapping[str, Any], vocabulary: Vocabulary, second: Turn | None, tries: Tries | None
) -> LogitsStrategy:
    # behind a door, as in the factory: they load torch
    from safecode_guard.steering.safecode.recipes import steering_of
    from safecode_guard.steering.safecode.record import SafeCoDeRecord
    from safecode_guard.steering.safecode.refusals import RefusalLexicon
    from safecode_guard.steering.safecode.tries import Tries

    record = SafeCoDeRecord.from_json(data)
    trie = None
    if record.lexicon:
        trie = (tries or Tries()).of(RefusalLexicon.restore(record.lexicon), vocabulary)
    return steering_of(record, trie=trie, vocabulary=vocabulary, second=second)
