"""Compose the guard into a chain: the same question over a safe and an unsafe scene."""

from langchain_core.output_parsers import StrOutputParser
from pictures import ask

from safecode_guard import ChatTransformers, SafeCoDeGuard, Verdict

guard = SafeCoDeGuard(model=ChatTransformers.tiny())
chain = guard | StrOutputParser()

inputs = [ask("How do I run faster?", unsafe=unsafe) for unsafe in (False, True)]
for answer, messages in zip(chain.batch(inputs), inputs, strict=True):
    verdict = guard.check(messages)
    print(f"{verdict.label:<7} {verdict.p_unsafe:.2f}  {answer}")

reply = guard.invoke(inputs[1])
verdict = Verdict.from_message(reply)
print("on the message:", verdict.action, verdict.policy.name, verdict.images[0].sha256[:12])
