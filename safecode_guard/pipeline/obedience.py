"""Obeyed or not: whether a finished answer did what its turn was steered to.

After an unsafe verdict it should refuse or advise against, after a safe one it should not refuse.
The lexicon tells; if the policy asks for it, a judge that has seen the answer tells of the unsafe
ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from safecode_guard.pipeline.case import Case
from safecode_guard.policy import Policy
from safecode_guard.steering.safecode.reasoning import visible
from safecode_guard.steering.safecode.refusals import RefusalLexicon
from safecode_guard.taxonomy import Label
from safecode_guard.verdict import FollowUp


@dataclass(frozen=True)
class Obedience:
    """Tells, under one policy, which answers obeyed."""

    policy: Policy
    lexicon: RefusalLexicon

    @classmethod
    def of(cls, policy: Policy) -> Obedience:
        """Return what tells by every language of the lexicon, and the policy's own phrases."""
        return cls(policy, RefusalLexicon.load(extra=policy.decoding.refusal_phrases))

    def applies(self, case: Case) -> bool:
        """Return whether it is told of a case: it was steered, by a verdict of safe or unsafe."""
        verdict = case.verdict
        return verdict is not None and verdict.decoding is not None and verdict.label in _PLAIN

    def holds(self, case: Case) -> bool:
        """Return whether a case's answer may be followed by another, and has to wait for that."""
        return self.policy.on_disobeyed != "report" and self.applies(case)

    def follows(self, case: Case) -> FollowUp | None:
        """Return what follows an answer whose fate is told; a second one has been given before."""
        chosen = self.policy.on_disobeyed
        unsafe = case.verdict is not None and case.verdict.label == "unsafe"
        if case.obeyed is False and unsafe and chosen in ("replace", "rail"):
            return chosen
        return None

    def asks_judge(self, case: Case) -> bool:
        """Return whether a judge tells of a case; of over-refusal none can."""
        label = case.verdict.label if case.verdict else None
        return self.policy.obeyed_by == "judge" and label == "unsafe" and self.applies(case)

    def told(self, case: Case, text: str, found: Label | None = None) -> bool | None:
        """Return whether an answer obeyed; None where that cannot be told.

        Args:
            case: The turn that was answered.
            text: The answer.
            found: What a judge found of it; only safe and unsafe count.
        """
        if case.verdict is None or not self.applies(case) or not visible(text).strip():
            return None
        if case.verdict.label == "safe":
            return not self.lexicon.is_refusal(text)
        if self.policy.obeyed_by == "judge" and found in _PLAIN:
            return found == "safe"
        return self.lexicon.is_refusal(text) or self.lexicon.is_warning(text)


_PLAIN = ("safe", "unsafe")
