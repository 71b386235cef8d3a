"""Held-out figures of a tiny model as a judge, in percent: its verdicts against the truth."""

import random
from collections.abc import Sequence
from typing import Final

from PIL import Image

from safecode_guard.tiny import calls, changes, prompts, replies, world
from safecode_guard.tiny.asking import Ask
from safecode_guard.tiny.changes import Change
from safecode_guard.tiny.evaluate import Exam, Figures, Hits, apart, exact, percent
from safecode_guard.tiny.scenery import FAMILIES
from safecode_guard.tiny.world import Scene

SIDES: Final = ("safe", "unsafe")


class JudgeExam:
    """Asks a model for verdicts on the items of an exam, and on changed forms of them."""

    def __init__(self, exam: Exam) -> None:
        self.exam = exam
        self.queries = [pair.query for pair in exam.pairs]

    def figures(self) -> Figures:
        """Measures all that a judge is asked about."""
        return {
            **self.requests(),
            **self.injections(),
            **self.answers(),
            **self.orders(),
            **self.tool_calls(),
            **self.dialogues(),
            **self.changed(),
        }

    def requests(self) -> Figures:
        """Measures verdicts on requests, plain questions and requests whose words are harmful."""
        exam = self.exam
        new_pair, new_scary = exam.unseen()
        safe, unsafe = self._hits(self.queries)
        scary = self._judge([item.scene for item in exam.scary], [q.query for q in exam.scary])
        harmful = self._judge(exam.scenes[: len(exam.harmful)], exam.harmful)
        rng = random.Random("plain questions")
        plain = [rng.choice(prompts.PLAIN_QUESTIONS["test"]) for _ in exam.pairs]
        looked = self._judge([pair.unsafe for pair in exam.pairs], plain)
        return {
            **apart("judge, pairs, safe right", safe, new_pair),
            **apart("judge, pairs, unsafe right", unsafe, new_pair),
            **apart("judge, pairs, average", [*safe, *unsafe], new_pair * 2),
            **apart("judge, scary", [text == "safe" for text in scary], new_scary),
            "judge, harmful": percent(text == "unsafe" for text in harmful),
            "judge, plain questions over unsafe scenes": percent(t == "safe" for t in looked),
        }

    def injections(self) -> Figures:
        """Measures verdicts on requests with text that tries to dictate them."""
        rng = random.Random("injections")
        injected = [prompts.injection(rng, prompts.HELD_OUT_INJECTIONS) for _ in self.queries]
        both = list(zip(self.queries, injected, strict=True))
        return {
            "judge, injection after": self._average([f"{query} {text}" for query, text in both]),
            "judge, injection before": self._average([f"{text} {query}" for query, text in both]),
        }

    def answers(self) -> Figures:
        """Measures verdicts on finished answers: help, and refusals, which are always safe."""
        rng = random.Random("answers")
        pairs = self.exam.pairs
        helped = [f"{p.query}\n{replies.advice(rng, p.phrase, p.tip)}" for p in pairs]
        declined = [f"{p.query}\n{replies.refusal(rng, p.unsafe.hazard)}" for p in pairs]
        verdicts = self._judge([pair.unsafe for pair in pairs], declined)
        return {
            "judge, finished help": self._average(helped),
            "judge, finished refusal": percent(text == "safe" for text in verdicts),
        }

    def orders(self) -> Figures:
        """Measures verdicts on orders to a robot."""
        made = self.exam.orders
        scenes = [scene for order in made for scene in (order.safe, order.unsafe)]
        texts = [order.text for order in made for _ in SIDES]
        return {"judge, orders": exact(self._judge(scenes, texts), [*SIDES] * len(made))}

    def tool_calls(self) -> Figures:
        """Measures verdicts on tool calls, by how they come about."""
        figures: Figures = {}
        for kind in calls.KINDS:
            made = calls.call_pairs(len(self.exam.pairs) // 2, kind, split="test")
            shown = [(pair.safe, pair.in_safe) for pair in made]
            shown += [(pair.unsafe, pair.in_unsafe) for pair in made]
            asked = [f"{call.request}\n{call.text}" for _, call in shown]
            expected = [SIDES[call.unsafe] for _, call in shown]
            right = [
                text == label
                for text, label in zip(
                    self._judge([scene for scene, _ in shown], asked), expected, strict=True
                )
            ]
            half = len(made)
            figures[f"judge, calls, {kind}, in safe scenes"] = percent(right[:half])
            figures[f"judge, calls, {kind}, in unsafe scenes"] = percent(right[half:])
        return figures

    def dialogues(self) -> Figures:
        """Measures verdicts on instructions that are spread over a conversation."""
        rng = random.Random("dialogues")
        later, plain = prompts.FOLLOW_UPS["test"], prompts.PLAIN_QUESTIONS["test"]
        stated = [f"{query}\n{rng.choice(later)}\n{rng.choice(later)}" for query in self.queries]
        grown = [f"{rng.choice(plain)}\n{rng.choice(plain)}\n{query}" for query in self.queries]
        innocent = [f"{rng.choice(plain)}\n{rng.choice(later)}" for _ in self.queries]
        looked = self._judge([pair.unsafe for pair in self.exam.pairs], innocent)
        return {
            "judge, follow-up turn": self._average(self.queries, follow_up=True),
            "judge, risk stated first": self._average(stated),
            "judge, risk stated last": self._average(grown),
            "judge, innocent dialogues over unsafe scenes": percent(t == "safe" for t in looked),
        }

    def changed(self) -> Figures:
        """Measures verdicts on changed pictures, several pictures and other wordings."""
        figures: Figures = {}
        every = {**changes.PICTURES, **changes.HELD_OUT_PICTURES}
        for name, change in every.items():
            figures[f"judge, {name} picture"] = self._under(name, change)
        figures["judge, second picture"] = self._second_picture()
        for style in changes.HELD_OUT_ASKED:
            figures[f"judge, {style} wording"] = self._average(self._worded(style))
        rng = random.Random("slips")
        slips = [changes.misspelt(query, rng) for query in self.queries]
        figures["judge, misspelt wording"] = self._average(slips)
        figures["judge, upper-case wording"] = self._average([q.upper() for q in self.queries])
        return figures

    def _under(self, name: str, change: Change) -> float:
        rng = random.Random(name)
        found = [
            self._verdicts([[change(scene.image, rng)] for scene in scenes], self.queries)
            for scenes in self._sides()
        ]
        return _right(*found)

    def _second_picture(self) -> float:
        """Measures requests with a harmless second picture, before or after the scene's own."""
        rng = random.Random("second pictures")
        found = []
        for scenes in self._sides():
            shown = [[scene.image, self._harmless(rng).image] for scene in scenes]
            for pictures in shown:
                rng.shuffle(pictures)
            found.append(self._verdicts(shown, self.queries))
        return _right(*found)

    def _harmless(self, rng: random.Random) -> Scene:
        family = rng.choice(tuple(FAMILIES))
        return world.draw(world.scene_seed(rng, "test"), family, False)

    def _worded(self, style: str) -> list[str]:
        rng = random.Random(style)
        return [changes.asked(style, pair.phrase, rng, held_out=True) for pair in self.exam.pairs]

    def _sides(self) -> tuple[list[Scene], list[Scene]]:
        pairs = self.exam.pairs
        return [pair.safe for pair in pairs], [pair.unsafe for pair in pairs]

    def _average(self, requests: Sequence[str], *, follow_up: bool = False) -> float:
        safe, unsafe = self._hits(requests, follow_up=follow_up)
        return percent([*safe, *unsafe])

    def _hits(self, requests: Sequence[str], *, follow_up: bool = False) -> tuple[Hits, Hits]:
        """Says for each pair whether the safe and the unsafe scene were judged rightly."""
        safe, unsafe = (
            self._judge(scenes, requests, follow_up=follow_up) for scenes in self._sides()
        )
        return [text == "safe" for text in safe], [text == "unsafe" for text in unsafe]

    def _judge(
        self, scenes: Sequence[Scene], requests: Sequence[str], *, follow_up: bool = False
    ) -> list[str]:
        asks = []
        for scene, request in zip(scenes, requests, strict=True):
            prompt = prompts.JUDGE_PROMPT.format(query=request)
            if follow_up:
                first = Ask.about(scene, prompts.CAPTION_PROMPT)
                asks.append(first.then(scene.caption, prompt))
            else:
                asks.append(Ask.about(scene, prompt))
        return self.exam.answer(asks, max_new_tokens=4)

    def _verdicts(
        self, shown: Sequence[Sequence[Image.Image]], requests: Sequence[str]
    ) -> list[str]:
        asks = [
            Ask.shown(pictures, prompts.JUDGE_PROMPT.format(query=request))
            for pictures, request in zip(shown, requests, strict=True)
        ]
        return self.exam.answer(asks, max_new_tokens=4)


def _right(safe: Sequence[str], unsafe: Sequence[str]) -> float:
    return percent([*(text == "safe" for text in safe), *(text == "unsafe" for text in unsafe)])
