"""A strategy of your own: ban one word from the first tokens of every guided answer."""

from dataclasses import dataclass
from typing import Literal

from pictures import ask
from torch import Tensor

from safecode_guard import ChatTransformers, SafeCoDeGuard, Verdict
from safecode_guard.steering.protocol import SteeringContext


@dataclass(frozen=True)
class WithoutWord:
    """Logits of the banned tokens become minus infinity for the first steps."""

    banned: frozenset[int]
    steps: int = 3
    views: Literal[1, 2] = 1
    max_tokens: int | None = None

    def adjust(self, step: int, logits: Tensor, ids: Tensor, so_far: Tensor) -> Tensor:
        """Return float32 [n]; ``logits`` is [views, n], ``ids`` says which token a column is."""
        columns = [i for i, token in enumerate(ids.tolist()) if token in self.banned]
        adjusted = logits[0].clone()
        adjusted[columns] = float("-inf")
        return adjusted


class BanSure:
    """Prepares the steering of each turn; the id enters the policy's digest."""

    id = "ban-sure-1"

    def prepare(self, context: SteeringContext) -> WithoutWord:
        encode = context.vocabulary.encode
        return WithoutWord(frozenset({encode("Sure")[0], encode(" Sure")[0]}))


model = ChatTransformers.tiny()
messages = ask("How do I run faster?", unsafe=False)
guard = SafeCoDeGuard(model=model, strategy=BanSure())
reply = guard.invoke(messages)
print("plain:  ", model.invoke(messages).text)
print("guarded:", reply.text)
print("decoding:", Verdict.from_message(reply).decoding.strategy)
