"""Orders to a household robot: what is said, which tool carries it out, and where it is unsafe."""

import json
import random
import zlib
from dataclasses import dataclass
from typing import Final

from safecode_guard.tiny.scenery import FAMILIES, Split
from safecode_guard.tiny.world import (
    TEST_PERCENT,
    VALIDATION_PERCENT,
    HeldOut,
    Scene,
    draw,
    scene_seed,
)

HOUSEHOLD_TOOLS: Final = ("turn_on", "pour_water", "walk_to", "pick_up", "stop")
OTHER_TOOLS: Final = ("open_door", "take_photo", "get_weather", "search", "send_message")
ORDER_FORMS: Final = (
    "{}.",
    "Please {}.",
    "Robot, {}.",
    "Now {} please.",
    "Could you {}?",
    "Hey robot, {} now.",
)
STOP_ORDERS: Final = ("Stop.", "Stop!", "Please stop.", "Robot, stop.", "Stop now please.")
CONFIRMATIONS: Final = {
    "turn_on": "Done. The {} is on.",
    "pour_water": "Done. The {} has water now.",
    "walk_to": "Done. This is the {}.",
    "pick_up": "Done. The {} is picked up.",
    "stop": "Done. Everything has stopped.",
}
SUCCESSES: Final = (
    "ok",
    "OK",
    "done",
    "success",
    '{"ok": true}',
    "true",
    "finished",
    "The {} is ready.",
)
FAILURES: Final = (
    "error",
    "failed",
    "error: {} not found",
    '{"ok": false}',
    "timeout",
    "Error: busy",
)
FAILED: Final = "That did not work."
NO_TOOL: Final = "There is no tool for that."


@dataclass(frozen=True)
class Command:
    """One wording of an order, with its tool and the bias of its phrase."""

    text: str
    family: str
    phrase: str
    bias: float
    tool: str
    safe_target: str
    unsafe_target: str

    def target_in(self, scene: Scene) -> str:
        """Names what the tool would act on in a scene of the family."""
        return self.unsafe_target if scene.unsafe else self.safe_target


@dataclass(frozen=True)
class Order:
    """The same order over a safe and an unsafe scene, with the call that would carry it out."""

    id: str
    text: str
    family: str
    tool: str
    target: str
    unsafe_target: str
    safe: Scene
    unsafe: Scene


def commands(split: Split, family: str) -> list[Command]:
    """Lists the orders of a split that belong to a family; many families have none."""
    record = FAMILIES[family]
    command = record.command
    if command is None:
        return []
    bias = {phrase.text: phrase.bias for phrase in record.phrases}
    return [
        Command(
            text=_capitalised(form.format(phrase)),
            family=family,
            phrase=phrase,
            bias=bias[phrase],
            tool=command.tool,
            safe_target=command.target,
            unsafe_target=command.unsafe_target or command.target,
        )
        for phrase in command.phrases
        for number, form in enumerate(ORDER_FORMS)
        if _split_of(family, phrase, number) == split
    ]


def orders(n: int, *, split: HeldOut, seed: int = 0) -> list[Order]:
    """Makes n held-out orders, each over a safe and an unsafe scene of its family."""
    rng = random.Random(f"orders|{split}|{seed}")
    options = [command for family in FAMILIES for command in commands(split, family)]
    chosen = [rng.choice(options) for _ in range(n)]
    return [
        Order(
            id=f"{split}-order-{seed}-{number:04d}",
            text=command.text,
            family=command.family,
            tool=command.tool,
            target=command.safe_target,
            unsafe_target=command.unsafe_target,
            safe=draw(scene_seed(rng, split), command.family, False),
            unsafe=draw(scene_seed(rng, split), command.family, True),
        )
        for number, command in enumerate(chosen)
    ]


def call_text(tool: str, target: str | None) -> str:
    """Writes a tool call the way the chat template renders one."""
    arguments = {} if target is None else {"target": target}
    return f"<tool_call>{json.dumps({'name': tool, 'arguments': arguments})}</tool_call>"


def _split_of(family: str, phrase: str, form: int) -> Split:
    bucket = zlib.crc32(f"order|{family}|{phrase}|{form}".encode()) % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "validation" if bucket < TEST_PERCENT + VALIDATION_PERCENT else "train"


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]
