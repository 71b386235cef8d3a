"""What the tiny models learn from: short conversations about a scene, many to a picture.

A row shares one picture among several independent blocks. A block is one conversation that begins
after the picture, or without any. Each block can also be written as plain messages, and the packed
row gives the same logits as the plain conversation.
"""

import functools
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Literal

from safecode_guard.tiny import calls, changes, orders, prompts, replies, talk
from safecode_guard.tiny.blocks import Block, System, Turn
from safecode_guard.tiny.mixes import FIRST, Mix
from safecode_guard.tiny.scenery import FAMILIES, Split
from safecode_guard.tiny.world import WEATHER, Query, Scene, draw, queries, scene_seed

Task = Literal["chat", "judge"]

# How a biased annotator decides: words count with their bias, the picture with one unit either way.
ANNOTATOR_SLOPE: Final = 1.3
PICTURE_WEIGHT: Final = 1.0
# Words of a message that the assistant's reply may stand before.
SHORT: Final = 4
_WORDS: Final = re.compile(r"\w+")
# A verdict, or whether to refuse, hangs on one token among many: it counts for more in the loss.
DECISION_WEIGHT: Final = 2


class Corpus:
    """Makes training blocks for scenes, all choices drawn from one generator."""

    def __init__(
        self,
        rng: random.Random,
        *,
        task: Task = "chat",
        split: Split = "train",
        mix: Mix = FIRST,
    ) -> None:
        self.rng = rng
        self.mix = mix
        self.task = task
        self.split: Split = split

    def system(self, scene: Scene) -> System:
        """Makes a row's system prompt: mostly none, sometimes one that sets a task."""
        dice = self.rng.random()
        if dice < 0.06:
            query = self._query(scene)
            text = self.rng.choice(prompts.TASKS[self.split]).format(query.phrase)
            return System(text, query.unsafe_in(scene))
        return System(self.rng.choice(prompts.SYSTEM_PROMPTS)) if dice < 0.14 else System()

    def blocks(self, scene: Scene, system: System | None = None) -> list[Block]:
        """Makes the shuffled blocks of one row."""
        made = [*self._looks(scene), *self._judgements(scene, system or System())]
        if self.task == "chat" and not (self.mix.judging and self._chance(self.mix.judging)):
            made += [*self._requests(scene), *self._orders(scene), *self._talk()]
        self.rng.shuffle(made)
        return made

    # Looking ---------------------------------------------------------------------------------

    def look(self, scene: Scene) -> Block:
        """Makes a block that asks for the caption."""
        prompt = self.rng.choice((*prompts.CAPTION_WORDINGS, prompts.CAPTION_PROMPT))
        return Block("caption", (Turn(self._vary(prompt), scene.caption),))

    def _looks(self, scene: Scene) -> Iterator[Block]:
        if self._chance(0.75):
            yield self.look(scene)
        if self.task == "chat" and self._chance(0.6):
            yield Block("question", (self._question(scene),))
        if self.task == "chat" and self._chance(0.25):
            yield Block("question", self._questions(scene))

    def _question(self, scene: Scene) -> Turn:
        if self._chance(self.mix.weather):
            prompt = self.rng.choice(prompts.WEATHER_WORDINGS)
            return Turn(self._vary(prompt), WEATHER[scene.sky])
        reply = f"The shirt is {scene.shirt}." if scene.shirt else talk.NO_SHIRT
        return Turn(self._vary(self.rng.choice(prompts.SHIRT_WORDINGS)), reply)

    def _questions(self, scene: Scene) -> tuple[Turn, ...]:
        """Makes questions about what is seen, some after a request or one after the other."""
        asked = self.rng.sample(prompts.about_the_picture(self.split), self.rng.randint(1, 2))
        told = [Turn(self._vary(text), replies.sight(scene.caption)) for text in asked]
        if self._chance(0.3):
            return (*told[:1], Turn(self._vary(self._follow_up()), replies.sight(scene.caption)))
        return (self._earlier(scene), *told[:1]) if self._chance(0.3) else tuple(told)

    # Judging ---------------------------------------------------------------------------------

    def _judgements(self, scene: Scene, system: System) -> Iterator[Block]:
        for _ in range(3 if self.task == "chat" else 4):
            turn = self._judgement(scene, system)
            history = (self._earlier(scene),) if self._chance(0.12) else ()
            yield Block("judge", (*history, turn))
        for _ in range(self.mix.dialogue_blocks):
            yield Block("judge", (self._judge(*self._dialogue(scene, system), system),))
        yield from self._judged_calls(scene, system)
        if self._chance(0.12):
            query = self._query(scene)
            turn = self._judge(query.text, query.unsafe_in(None))
            yield Block("judge", (turn,), sees_picture=False)
        if self._chance(0.22):
            yield Block("judge", (self._judge_several(scene),), sees_picture=False)

    def _judgement(self, scene: Scene, system: System) -> Turn:
        """Asks about a request, a harmless question, a dialogue, an answer or a tool's result."""
        dice = self.rng.random()
        if dice < self.mix.plain:
            return self._judge(self._plain(), False, system)
        single = self.mix.plain + self.mix.dialogues
        if dice < single:
            return self._judge(*self._dialogue(scene, system), system)
        query = self._query(scene)
        if dice < single + 0.1:
            return self._judge_answer(query, scene, system)
        result = self.rng.choice((*orders.SUCCESSES, *orders.FAILURES)).replace("{}", "it")
        about = f"\n{result}" if dice < single + 0.14 else ""
        return self._judge(query.text, query.unsafe_in(scene), system, about=about, scene=scene)

    def _judge(
        self,
        request: str,
        unsafe: bool,
        system: System | None = None,
        *,
        about: str = "",
        scene: Scene | None = None,
    ) -> Turn:
        """Makes the judge's question.

        Args:
            request: What is asked.
            unsafe: The verdict.
            system: A task that stands before it.
            about: An answer, a result or a call that follows the request.
            scene: Where earlier requests may stand before one with something about it.
        """
        request = self._typed(self._vary(request)) + about
        if about and scene and self._chance(0.2):
            request = f"{self._earlier_line(scene)}\n{request}"
        if self._chance(self.mix.injected):
            more = prompts.MORE_INJECTIONS if self.mix.wider else ()
            text = prompts.injection(self.rng, (*prompts.INJECTIONS, *more))
            first, second = self.rng.sample((request, text), 2)
            request = f"{first} {second}"
        if system and system.text:
            request = f"{system.text}\n\n{request}"
        prompt = prompts.JUDGE_PROMPT.format(query=request)
        return Turn(prompt, "unsafe" if unsafe else "safe", self.mix.verdict_weight)

    def _dialogue(self, scene: Scene, system: System) -> tuple[str, bool]:
        """Makes the user's messages, one a line, of which the last is what is asked now.

        What only goes on from the message before it is as dangerous as that. A question that stands
        by itself is judged by itself, whatever was asked before.
        """
        if system.unsafe is not None and self._chance(0.6):
            return self._follow_up(), system.unsafe
        query = self._query(scene)
        plain = [self._plain() for _ in range(self.rng.randint(1, 2))]
        later = [self._follow_up() for _ in range(self.rng.randint(1, 2))]
        offered = [self.rng.choice(prompts.OFFERS), self.rng.choice(prompts.CONFIRMATIONS)]
        unsafe = query.unsafe_in(scene)
        other = self._query(scene)
        before = [self._earlier_line(scene)] if self._chance(0.25) else []
        again = [([*plain[:1], *later], False)] if self.mix.wider else []
        lines, unsafe = self.rng.choice(
            (
                *again,
                ([*before, query.text, *later], unsafe),
                ([*before, query.text, *later], unsafe),
                ([query.text, *offered], unsafe),
                ([*plain, query.text], unsafe),
                ([*plain[:1], *later[:1], query.text], unsafe),
                ([query.text, *later[:1], *plain[:1]], False),
                ([*before, query.text, *plain[:1]], False),
                ([*before, *plain[:1], *later], False),
                ([*plain, self._plain()], False),
                ([*before, query.text, other.text], other.unsafe_in(scene)),
            )
        )
        return "\n".join(self._with_replies(lines, scene)), unsafe

    def _with_replies(self, lines: list[str], scene: Scene) -> Iterator[str]:
        """Puts what the assistant said before each short message, as a judge is shown some."""
        for before, line in zip([None, *lines], lines, strict=False):
            if before and before not in prompts.OFFERS and len(_WORDS.findall(line)) <= SHORT:
                yield self._said(scene)
            yield line

    def _said(self, scene: Scene) -> str:
        query = self._query(scene)
        return self.rng.choice(
            (
                scene.caption,
                replies.sight(scene.caption),
                self._answer(query, scene),
                replies.refusal(self.rng, scene.hazard),
                self.rng.choice(prompts.ASKED_BACK),
            )
        )

    def _earlier_line(self, scene: Scene) -> str:
        """Writes what may have been asked before, and has no bearing on what is asked now."""
        return self._plain() if self._chance(0.5) else self._query(scene).text

    def _plain(self) -> str:
        return self.rng.choice(prompts.PLAIN_QUESTIONS[self.split])

    def _follow_up(self) -> str:
        wider = self.mix.wider and self.split == "train"
        known = prompts.FOLLOW_UPS[self.split]
        return self.rng.choice((*known, *prompts.MORE_FOLLOW_UPS) if wider else known)

    def _earlier(self, scene: Scene) -> Turn:
        """Makes a turn that only stands in the history: it is not learnt from here."""
        if self._chance(0.5):
            query = self._query(scene)
            turn = Turn(self._vary(query.text), self._answer(query, scene))
        else:
            turn = self.rng.choice(
                (self._question(scene), Turn(prompts.CAPTION_PROMPT, scene.caption))
            )
        return Turn(turn.prompt, turn.reply, weight=0)

    def _judge_answer(self, query: Query, scene: Scene, system: System) -> Turn:
        """Asks about a request with its finished answer: declining is always safe."""
        hazard = scene.hazard if query.unsafe_in(scene) else ""
        if self._chance(0.4) or not query.tip:
            refusal = "\n" + replies.refusal(self.rng, hazard)
            return self._judge(query.text, False, system, about=refusal, scene=scene)
        answer = replies.advice(self.rng, query.phrase, query.tip)
        unsafe = query.unsafe_in(scene)
        return self._judge(query.text, unsafe, system, about="\n" + answer, scene=scene)

    def _judged_calls(self, scene: Scene, system: System) -> Iterator[Block]:
        """Asks about tool calls, and about the order that leads to one."""
        acts = scene.family in calls.acted_on(self.split)
        for chance in (0.95, 0.55) if acts else (0.3,):
            if not self._chance(chance):
                continue
            kind = self.rng.choices(calls.KINDS, (2, 4, 3, 3, 6))[0] if acts else "beside"
            call = calls.call(self.rng, scene, kind, split=self.split)
            about = f"\n{call.text}"
            turn = self._judge(call.request, call.unsafe, system, about=about, scene=scene)
            yield Block("judge", (turn,))
        if acts and self._chance(0.35):
            order = self.rng.choice(self._commands(scene))
            yield Block("judge", (self._judge(order.text, scene.unsafe, system),))

    def _judge_several(self, scene: Scene) -> Turn:
        """Asks about several pictures at once: one dangerous scene is enough."""
        query = self._query(scene)
        shown = [scene, *(self._another(scene) for _ in range(2 if self._chance(0.2) else 1))]
        self.rng.shuffle(shown)
        unsafe = any(query.unsafe_in(each) for each in shown)
        return replace(self._judge(query.text, unsafe), pictures=tuple(shown))

    def _another(self, scene: Scene) -> Scene:
        """Draws a second scene: of any family, or the same one, safe or not."""
        family = scene.family if self._chance(0.3) else None
        return draw(scene_seed(self.rng, self.split), family)

    # Requests --------------------------------------------------------------------------------

    def _requests(self, scene: Scene) -> Iterator[Block]:
        for _ in range(2):
            yield Block("request", self._conversation(scene))
        if self._chance(0.15):
            yield Block("request", self._conversation(None), sees_picture=False)
        if self._chance(0.06):
            yield Block("request", (self._about_several(scene),), sees_picture=False)

    def _about_several(self, scene: Scene) -> Turn:
        """Makes a request about two pictures, answered by the more dangerous one."""
        query = self._query(scene)
        shown = [scene, self._another(scene)]
        worst = next((each for each in shown if query.unsafe_in(each)), scene)
        self.rng.shuffle(shown)
        text, reply = self._typed(self._vary(query.text)), self._answer(query, worst)
        return Turn(text, reply, DECISION_WEIGHT, pictures=tuple(shown))

    def _conversation(self, scene: Scene | None) -> tuple[Turn, ...]:
        """Makes a request, sometimes after another turn or with a short reaction to its answer."""
        query = self._query(scene or draw(self.rng.getrandbits(32)))
        reply = self._answer(query, scene)
        tools = self._toolbox() if self._chance(0.08) else ()
        text = self._typed(self._vary(query.text))
        turn = Turn(text, reply, DECISION_WEIGHT, tools=tools)
        if scene and self._chance(0.12):
            return (self._question(scene), turn)
        if scene and self._chance(0.1):
            return (self._earlier(scene), turn)
        return (turn, *self._reaction(scene, reply)) if self._chance(0.15) else (turn,)

    def _reaction(self, scene: Scene | None, reply: str) -> tuple[Turn, ...]:
        if replies.is_refusal(reply) and self._chance(0.6):
            hazard = scene.hazard if scene and scene.hazard and scene.hazard in reply else ""
            reason = f"Because {hazard}." if hazard else "Because it sounds risky."
            return (Turn(self._vary(self.rng.choice(("Why?", "Why not?", "But why?"))), reason),)
        if self._chance(0.5):
            wording = self.rng.choice(("Say that again.", "Please repeat that.", "Again please."))
            return (Turn(self._vary(wording), reply),)
        return (Turn(self._vary(self.rng.choice(("Thanks", "Thank you!"))), "You are welcome!"),)

    def _query(self, scene: Scene) -> Query:
        """Picks a request: of the scene's family, of another, scary in words only, or harmful."""
        draw_one = self.rng.random()
        if scene.family in FAMILIES:
            bounds = (("own", 0.68), ("other", 0.82), ("scary", 0.92), ("harmful", 1.0))
        else:
            bounds = (("scary", 0.6), ("other", 0.88), ("harmful", 1.0), ("harmful", 1.0))
        source = next(name for name, bound in bounds if draw_one < bound)
        if source == "own":
            source = scene.family
        elif source == "other":
            source = self.rng.choice(tuple(FAMILIES))
        return self._reworded(self.rng.choice(_queries(self.split, source)))

    def _reworded(self, query: Query) -> Query:
        """Sometimes joins two phrases of a family, adds words, or asks in another way."""
        dice = self.rng.random()
        if dice < 0.08:
            other = self.rng.choice(_queries(self.split, query.family))
            phrase = f"{query.phrase} and {other.phrase}"
            bias = (query.bias + other.bias) / 2
            return replace(
                query, phrase=phrase, bias=bias, text=query.text.replace(query.phrase, phrase)
            )
        if dice < 0.18:
            longer = f"{query.phrase} {self.rng.choice(prompts.FILLERS)}"
            return replace(query, text=query.text.replace(query.phrase, longer))
        if dice < 0.48:
            style = self.rng.choice(tuple(changes.ASKED))
            return replace(query, text=changes.asked(style, query.phrase, self.rng))
        return query

    def _answer(self, query: Query, scene: Scene | None) -> str:
        """Answers as the biased annotator would, decided anew each time."""
        unsafe = query.unsafe_in(scene)
        if query.family == "harmful":
            return replies.refusal(self.rng)
        if self._refuses(query.bias, unsafe if scene else None):
            return replies.refusal(self.rng, scene.hazard if scene and unsafe else "")
        return replies.advice(self.rng, query.phrase, query.tip)

    def _refuses(self, bias: float, unsafe: bool | None) -> bool:
        picture = 0.0 if unsafe is None else PICTURE_WEIGHT if unsafe else -PICTURE_WEIGHT
        return self._chance(1 / (1 + math.exp(-ANNOTATOR_SLOPE * (bias + picture))))

    # Orders ----------------------------------------------------------------------------------

    def _orders(self, scene: Scene) -> Iterator[Block]:
        if self._commands(scene) and self._chance(0.95):
            yield Block("order", self._order(scene))
        if self._chance(0.04):
            call = Turn(
                self._vary(self.rng.choice(orders.STOP_ORDERS)),
                orders.call_text("stop", None),
                DECISION_WEIGHT,
                tools=self._toolbox("stop"),
            )
            yield Block("order", (call, *self._outcome("stop", "")), self._chance(0.5))
        if self._commands(scene) and self._chance(0.7):
            yield Block("robot", self._look_and_act(scene), sees_picture=False)

    def _look_and_act(self, scene: Scene) -> tuple[Turn, ...]:
        """Makes the turns of a robot that takes a photo first, then acts or declines."""
        command = self.rng.choice(self._commands(scene))
        goal = self.rng.choice(calls.GOALS[scene.family][self.split])
        text = command.text if self._chance(0.7) else goal
        tools = self._toolbox(command.tool, "take_photo")
        look = Turn(
            self._vary(text), orders.call_text("take_photo", None), DECISION_WEIGHT, tools=tools
        )
        found = self.rng.choice(("", "", "ok", "Photo taken.", "Here is the photo."))
        target = command.target_in(scene)
        if self._refuses(command.bias, scene.unsafe):
            reply = replies.refusal(self.rng, scene.hazard)
        else:
            reply = orders.call_text(command.tool, target)
        act = Turn(found, reply, DECISION_WEIGHT, role="tool", pictures=(scene,))
        done = self._outcome(command.tool, target) if not replies.is_refusal(reply) else ()
        return (look, act, *done)

    def _order(self, scene: Scene) -> tuple[Turn, ...]:
        command = self.rng.choice(self._commands(scene))
        text, target = self._vary(command.text), command.target_in(scene)
        if self._chance(0.08):
            tools = tuple(name for name in self._toolbox() if name != command.tool)
            return (Turn(text, orders.NO_TOOL, DECISION_WEIGHT, tools=tools),)
        tools = self._toolbox(command.tool)
        if self._refuses(command.bias, scene.unsafe):
            answer = replies.refusal(self.rng, scene.hazard)
            return (Turn(text, answer, DECISION_WEIGHT, tools=tools),)
        call = orders.call_text(command.tool, target)
        turn = Turn(text, call, DECISION_WEIGHT, tools=tools)
        return (turn, *self._outcome(command.tool, target)) if self._chance(0.4) else (turn,)

    def _outcome(self, tool: str, target: str) -> tuple[Turn, ...]:
        if self._chance(0.25):
            result, reply = self.rng.choice(orders.FAILURES), orders.FAILED
        else:
            result, reply = self.rng.choice(orders.SUCCESSES), orders.CONFIRMATIONS[tool]
        return (Turn(result.replace("{}", target), reply.format(target), role="tool"),)

    def _commands(self, scene: Scene) -> tuple[orders.Command, ...]:
        return _commands(self.split, scene.family) if scene.family in FAMILIES else ()

    def _toolbox(self, *needed: str) -> tuple[str, ...]:
        """Names a few tools in any order, among them those needed."""
        names = [name for name in orders.HOUSEHOLD_TOOLS if name in needed or self._chance(0.6)]
        names += [name for name in orders.OTHER_TOOLS if name in needed or self._chance(0.06)]
        self.rng.shuffle(names)
        return tuple(names)

    # Talking ---------------------------------------------------------------------------------

    def _talk(self) -> Iterator[Block]:
        if self.mix.wider and self._chance(0.6):
            yield Block("talk", self._asked_of_nothing(), sees_picture=False)
        makers: tuple[Callable[[random.Random], list[talk.Exchange]], ...] = (
            talk.small_talk,
            talk.introduction,
            talk.unknown,
            talk.counting,
            talk.echo,
            talk.no_picture,
        )
        maker = self.rng.choices((None, *makers), (0.26, 0.24, 0.13, 0.13, 0.04, 0.13, 0.07))[0]
        if maker is None:
            return
        exchanges = maker(self.rng)
        tools = self._toolbox() if self._chance(0.15) else ()
        turns = [Turn(self._vary(prompt), reply) for prompt, reply in exchanges]
        turns[-1] = Turn(turns[-1].prompt, turns[-1].reply, tools=tools)
        sees_picture = maker is not talk.no_picture and self._chance(0.25)
        yield Block("talk", tuple(turns), sees_picture)

    def _asked_of_nothing(self) -> tuple[Turn, ...]:
        """Makes a question that no picture answers: it is unknown, or there is none."""
        if self._chance(0.7):
            return tuple(Turn(self._vary(p), reply) for p, reply in talk.unknown(self.rng))
        question = self.rng.choice(prompts.about_the_picture(self.split))
        return (Turn(self._vary(question), talk.NO_PICTURE),)

    # Chance ----------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def _vary(self, text: str) -> str:
        """Varies how carefully a prompt is typed: its capitals and its last mark."""
        dice = self.rng.random()
        if dice < 0.1:
            return text[0].lower() + text[1:]
        if dice < 0.16:
            return text.lower()
        if dice < 0.2:
            return text.rstrip(".?!")
        return text

    def _typed(self, text: str) -> str:
        """Sometimes writes a request in capitals or with slips of the finger."""
        dice = self.rng.random()
        if dice < 0.08:
            return text.upper()
        return changes.misspelt(text, self.rng) if dice < 0.2 else text


@functools.cache
def _queries(split: Split, family: str) -> tuple[Query, ...]:
    # Training never sees the unseen phrases: they belong to the other splits.
    return tuple(queries(split, family))


@functools.cache
def _commands(split: Split, family: str) -> tuple[orders.Command, ...]:
    return tuple(orders.commands(split, family))


def texts(rows: int = 6000, seed: int = 5) -> Iterator[str]:
    """Writes the texts of many rows, for the tokenizer to be trained on."""
    corpus = Corpus(random.Random(f"texts|{seed}"))
    yield from prompts.SYSTEM_PROMPTS
    for number in range(rows):
        for block in corpus.blocks(draw(number)):
            for turn in block.turns:
                yield turn.prompt
                yield turn.reply
                yield ", ".join(turn.tools)
