"""A strategy of your own: ban one word from the first tokens of every guided answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from pictures import ask
from torch import Tensor

from safecode_guard import ChatTransformers, Needs, SafeCoDeGuard, SteeringContext, Step, Verdict


@dataclass(frozen=True)
class WithoutWord:
    """Logits of the banned tokens become minus infinity for the first steps."""

    banned: frozenset[int]
    steps: int = 3
    second: None = None
    max_tokens: int | None = None

    def done(self, so_far: Sequence[int]) -> bool:
        """Return whether the steered tokens are over."""
        return len(so_far) >= self.steps

    def adjust(self, step: Step) -> Tensor:
        """Return float32 [n]; ``step.ids`` says which token a column of the logits is."""
        columns = [i for i, token in enumerate(step.ids.tolist()) if token in self.banned]
        adjusted = step.logits[0].clone()
        adjusted[columns] = float("-inf")
        return adjusted


class BanSure:
    """Prepares the steering of each turn; the id enters the policy's digest."""

    id = "ban-sure-1"
    needs = Needs()

    def prepare(self, context: SteeringContext) -> WithoutWord:
        encode = context.vocabulary.encode
        return WithoutWord(frozenset({encode("Sure")[0], encode(" Sure")[0]}))

    def record(self, context: SteeringContext) -> dict[str, str]:
        """Return what stands in the verdict about this turn's steering."""
        return {"banned": "Sure"}


model = ChatTransformers.tiny()
messages = ask("How do I run faster?", unsafe=False)
reply = SafeCoDeGuard(model=model, strategy=BanSure()).invoke(messages)
print("plain:  ", model.invoke(messages).text)
print("guarded:", reply.text)
decoding = Verdict.from_message(reply).decoding
print("decoding:", decoding.strategy, decoding.parameters)
