"""Batches: one call per input, as LangChain makes them, whose forward passes meet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list

from safecode_guard.pipeline.guarded import GuardedTurns
from safecode_guard.pipeline.host import Host
from safecode_guard.pipeline.requests import TurnEvent, TurnRequest, TurnResult
from safecode_guard.runnables.rendezvous import Rendezvous

Group = Rendezvous[TurnRequest, TurnResult]


class Ticket:
    """One caller's place in a batch; used at most once."""

    def __init__(self, owner: object, turns: GuardedTurns, group: Group) -> None:
        self.owner = owner
        self.group = group
        self.used = False
        self._turns = turns

    def run_all(self) -> None:
        """Answer all that was handed in, in this thread."""
        try:
            self.group.settle(self._turns.run(self.group.items))
        except BaseException as error:  # every caller must hear of it, whatever it is
            self.group.fail(error)

    async def arun_all(self, host: Host) -> None:
        """Answer all that was handed in, on the event loop."""
        try:
            items = self.group.items
            ends: dict[int, TurnEvent] = {}
            async for i, event in self._turns.stream(items, host):
                ends[i] = event
            self.group.settle([ends[i] for i in range(len(items))])  # type: ignore[misc]
        except BaseException as error:  # every caller must hear of it, whatever it is
            self.group.fail(error)


_ticket: ContextVar[Ticket | None] = ContextVar("safecode_guard_ticket", default=None)


def own_ticket(owner: object) -> Ticket | None:
    """Return the ticket of the call in progress, if it is the owner's and not used yet."""
    ticket = _ticket.get()
    if ticket is None or ticket.owner is not owner or ticket.used:
        return None
    ticket.used = True
    return ticket


def batched(
    model: BaseChatModel,
    turns: GuardedTurns,
    inputs: Sequence[Any],
    configs: Sequence[RunnableConfig],
    *,
    return_exceptions: bool,
    options: dict[str, Any],
) -> list[Any]:
    """Answer inputs together, each in a call of its own."""

    def one(ticket: Ticket, input_: Any, config: RunnableConfig) -> Any:
        token = _ticket.set(ticket)
        try:
            return model.invoke(input_, config, **options)
        except Exception as error:
            if not return_exceptions:
                raise
            return error
        finally:
            _ticket.reset(token)
            if not ticket.used and ticket.group.leave():
                ticket.run_all()

    tickets = _tickets(model, turns, len(inputs))
    with ContextThreadPoolExecutor(max_workers=len(inputs)) as executor:
        return list(executor.map(one, tickets, inputs, configs))


async def abatched(
    model: BaseChatModel,
    turns: GuardedTurns,
    host: Host,
    inputs: Sequence[Any],
    configs: Sequence[RunnableConfig],
    *,
    options: dict[str, Any],
) -> list[Any]:
    """Answer inputs together on the event loop; errors stand in their places."""

    async def one(ticket: Ticket, input_: Any, config: RunnableConfig) -> Any:
        _ticket.set(ticket)  # gather gives each coroutine a context of its own
        try:
            return await model.ainvoke(input_, config, **options)
        finally:
            if not ticket.used and ticket.group.leave():
                await ticket.arun_all(host)

    calls = map(one, _tickets(model, turns, len(inputs)), inputs, configs)
    return await asyncio.gather(*calls, return_exceptions=True)


def parts(
    inputs: Sequence[Any], config: RunnableConfig | list[RunnableConfig] | None, *, most: int
) -> Iterator[tuple[Sequence[Any], list[RunnableConfig]]]:
    """Yield inputs, with their configs, as many at a time as may be decoded together."""
    if not inputs:
        return
    configs = get_config_list(config, len(inputs))
    size = max(1, min(most, configs[0].get("max_concurrency") or most))
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size], configs[start : start + size]


def _tickets(owner: object, turns: GuardedTurns, size: int) -> list[Ticket]:
    group: Group = Rendezvous(size)
    return [Ticket(owner, turns, group) for _ in range(size)]
