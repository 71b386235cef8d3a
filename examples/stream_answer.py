"""Stream a guarded answer: the verdict comes first, then the guided tokens, then the rest live."""

import asyncio

from pictures import ask

from safecode_guard import ChatTransformers, SafeCoDeGuard, Verdict, VerdictHandler

guard = SafeCoDeGuard(model=ChatTransformers.tiny())
messages = ask("How do I run faster?", unsafe=True)


def told(verdict: Verdict) -> None:
    print(f"[{verdict.label}, {verdict.action}]", end=" ")


for chunk in guard.stream(messages, {"callbacks": [VerdictHandler(told)]}):
    print(chunk.text, end="", flush=True)
print()


async def events() -> None:
    async for event in guard.astream_events(messages, version="v2"):
        if verdict := Verdict.from_event(event):
            print("event:", verdict.label, verdict.action)


asyncio.run(events())
