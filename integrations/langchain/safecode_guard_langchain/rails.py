"""Rails: a stage and what it is about in, a verdict out, by the core's own check.

A rail reads what is to be judged in each of its scenes, lets the tool's own policy decide, and
binds the verdict to what was asked. The judge is not asked again about what a state remembers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from safecode_guard.errors import GuardError, TemplateError
from safecode_guard.judges.protocol import ToolCallSubject, canonical_json
from safecode_guard.pipeline.examiner import Examiner, Finding, Subject
from safecode_guard.pipeline.host import Host
from safecode_guard.pipeline.routing import RouteKind
from safecode_guard.pipeline.rules import unjudgeable
from safecode_guard.policy import Policy
from safecode_guard.runnables.runs import run_of
from safecode_guard.runnables.subjects import Examination
from safecode_guard.taxonomy import Stage
from safecode_guard.turns.pictures import PictureStore
from safecode_guard.turns.turn import Turn, TurnMessage
from safecode_guard.verdict import SkippedMedia, Verdict
from safecode_guard_langchain.parts import halves
from safecode_guard_langchain.scene import Conversation, Short, in_short, scenes
from safecode_guard_langchain.sight import Sight, plain
from safecode_guard_langchain.state import unsealed

ToolPolicies = Sequence[tuple[str, Examiner | Literal["skip"]]]
Entries = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked about one subject: the same in each scene that it belongs to."""

    examiner: Examiner
    subjects: tuple[Subject, ...]

    @cached_property
    def id(self) -> str:
        """The hash of all that the judge is shown, and of the policy that decides."""
        asked = [[self.route_of(each), *self._keys(each)] for each in self.subjects]
        text = canonical_json([self.examiner.digest, asked])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def route_of(self, subject: Subject) -> RouteKind:
        """Return whether a subject passes, is judged, or is refused unseen."""
        return self.examiner.route(subject).kind

    def _keys(self, subject: Subject) -> list[str]:
        judge, policy = self.examiner.judge_at(subject.stage), self.examiner.policy
        requests = subject.requests(
            most=policy.scene_images, asked=policy.scene_requests, shown=policy.scene_judged
        )
        return [request.key(judge.id, judge.prompt_version) for request in requests]

    def distinct(self) -> list[Subject]:
        """Return the subjects without those that ask the same again."""
        return list({tuple(self._keys(each)): each for each in self.subjects}.values())


@dataclass(frozen=True)
class Ruling:
    """What a rail found."""

    policy: Policy
    verdict: Verdict | None = None
    """None: it was not judged, because it is not to be, or could not be read."""
    question: str = ""
    """What the verdict is bound to."""
    unread: str = ""
    """Why it could not be read."""

    @property
    def passes(self) -> bool:
        """Whether it may run, or be shown."""
        if self.verdict is None:
            return not self.unread
        return self.verdict.standing in ("pass", "guide")

    @property
    def asks(self) -> bool:
        """Whether a human is to decide."""
        return not self.unread and self.verdict is not None and self.verdict.standing == "review"

    @property
    def reason(self) -> str:
        """Why it does not pass, in one line."""
        if self.unread or self.verdict is None:
            return f"it cannot be judged: {self.unread}"
        return reason_of(self.verdict)


@dataclass(frozen=True)
class Rails:
    """Everything that judges an agent; safe to share among threads, tasks and agents."""

    examiner: Examiner
    """Of the user's turn, the answer, and every tool that is not named."""
    tools: ToolPolicies = ()
    """Patterns of tool names, the first that matches."""
    pictures: PictureStore = field(default_factory=lambda: PictureStore(256_000_000))

    @cached_property
    def sight(self) -> Sight:
        """Knows which media a message holds."""
        return Sight(self.pictures)

    @property
    def policy(self) -> Policy:
        """The policy of all that is no named tool's."""
        return self.examiner.policy

    def of_tool(self, name: str) -> Examiner | None:
        """Return what examines a tool; None if it is never judged."""
        found = (examiner for pattern, examiner in self.tools if fnmatchcase(name, pattern))
        examiner = next(found, self.examiner)
        return None if examiner == "skip" else examiner

    # -- the four stages ----------------------------------------------------------------------

    async def turn(self, messages: Conversation, new: Conversation, host: Host) -> Ruling:
        """Judge the user's turn, and with it every picture of the conversation.

        Args:
            messages: The conversation.
            new: Messages with pictures that have passed nowhere yet: all of them are judged,
                however many they are.
            host: Who waits.
        """
        ids = {id(message) for message in new}
        shown = [plain(message) for message in messages]
        fresh = [p for m, p in zip(messages, shown, strict=True) if id(m) in ids]
        about = About("input")
        return await self._one(self.examiner, about, shown, fresh, host)

    async def calls(
        self,
        messages: Conversation,
        calls: Sequence[Mapping[str, Any]],
        host: Host,
        *,
        known: Sequence[Any] = (),
        passed: frozenset[str] = frozenset(),
    ) -> list[Ruling]:
        """Judge calls that one message makes, side by side.

        Args:
            messages: The conversation before that message.
            calls: The calls, as they will run.
            host: Who waits.
            known: What the state remembers of each.
            passed: Marks of media that may be shown.
        """
        read = partial(self._call_questions, messages, calls, passed)
        questions = await host.call(read)
        remembered = known or [None] * len(calls)
        rulings: list[Ruling | None] = [
            self._remembered(question, entry)
            for question, entry in zip(questions, remembered, strict=True)
        ]
        open_ = [i for i, ruling in enumerate(rulings) if ruling is None]
        asked = [question for i in open_ if isinstance(question := questions[i], Question)]
        for i, ruling in zip(open_, await self._judged(asked, host), strict=True):
            rulings[i] = ruling
        return [ruling for ruling in rulings if ruling is not None]

    async def result(
        self,
        messages: Conversation,
        call: Mapping[str, Any],
        result: Conversation,
        host: Host,
        *,
        passed: frozenset[str] = frozenset(),
    ) -> Ruling:
        """Judge what a tool returned, as tool messages, in the scene that it is shown in."""
        examiner = self.of_tool(str(call.get("name")))
        if examiner is None:
            return Ruling(self.policy)
        about = About("tool_result", call, passed=passed)
        return await self._one(examiner, about, messages, result, host)

    async def answer(
        self,
        messages: Conversation,
        answer: AIMessage,
        text: str,
        host: Host,
        *,
        passed: frozenset[str] = frozenset(),
    ) -> Ruling:
        """Judge a finished answer, with the pictures that it holds itself."""
        own = [plain(answer)] if self.sight.media(answer) else []
        about = About("output", answer=text, passed=passed)
        return await self._one(self.examiner, about, messages, own, host)

    def unplaced(self, call: Mapping[str, Any], why: str) -> Ruling:
        """Return the ruling on a call whose conversation is not to be found."""
        examiner = self.of_tool(str(call.get("name")))
        if examiner is None:
            return Ruling(self.policy)
        error = TemplateError(why)
        return Ruling(examiner.policy, _unreadable(examiner, About("tool_call", call), error))

    def judges_answers(self, messages: Conversation, answer: AIMessage | None = None) -> bool:
        """Return whether there is something to judge an answer by: a picture, or the policy."""
        if self.policy.stages.output.when == "always":
            return True
        shown = any(self.sight.shows(each) for each in scenes(messages, self.sight))
        return shown or (answer is not None and bool(self.sight.media(answer)))

    # -- how they do it -----------------------------------------------------------------------

    async def _one(
        self,
        examiner: Examiner,
        about: About,
        messages: Conversation,
        own: Conversation,
        host: Host,
    ) -> Ruling:
        question = await host.call(partial(self._question, examiner, about, messages, own))
        if isinstance(question, Ruling):
            return question
        return (await self._judged([question], host))[0]

    def _call_questions(
        self, messages: Conversation, calls: Sequence[Mapping[str, Any]], passed: frozenset[str]
    ) -> list[Question | Ruling]:
        found: list[Question | Ruling] = []
        for call in calls:
            examiner = self.of_tool(str(call.get("name")))
            if examiner is None:
                found.append(Ruling(self.policy))
            else:
                about = About("tool_call", call, passed=passed)
                found.append(self._question(examiner, about, messages, ()))
        return found

    def _question(
        self, examiner: Examiner, about: About, messages: Conversation, own: Conversation
    ) -> Question | Ruling:
        """Read what is to be asked; a ruling if it cannot be read.

        Args:
            examiner: Who asks.
            about: What it is about.
            messages: The conversation.
            own: What the subject itself shows: what a tool returned, or an answer. Of a user's
                turn, those of the conversation's messages that have passed nowhere yet.
        """
        policy = examiner.policy
        reading = Reading(policy, self.pictures, about)
        try:
            if about.call is not None:
                ToolCallSubject.of(about.call)
            subjects: list[Subject] = []
            for short in self._conversations(messages, about, policy):
                whole = [*short.messages, *about.separator, *own]
                if about.stage == "input":
                    whole = short.messages
                subjects += (placed(s, short.places) for s in reading.all_of(whole, own))
        except GuardError as error:
            return Ruling(policy, _unreadable(examiner, about, error), unread=error.message)
        return Question(examiner, tuple(subjects))

    def _conversations(
        self, messages: Conversation, about: About, policy: Policy
    ) -> Iterator[Short]:
        found = scenes(messages, self.sight)
        if about.stage == "input":  # a caller's turn was judged with the caller
            yield Short(found[0], list(range(len(found[0]))))
            return
        for scene in found:
            yield in_short(scene, self.sight, most=policy.scene_images, passed=about.passed)

    def _remembered(self, question: Question | Ruling, entry: Any) -> Ruling | None:
        """Return the ruling that needs no judge: of what is not judged, or was before."""
        if isinstance(question, Ruling):
            return question
        if verdict := unsealed(entry, question.id):
            return Ruling(question.examiner.policy, verdict, question.id)
        return None

    async def _judged(self, questions: Sequence[Question], host: Host) -> list[Ruling]:
        """Ask the judge all that one examiner has to ask in one go."""
        rulings: dict[int, Ruling] = {}
        for examiner in {id(q.examiner): q.examiner for q in questions}.values():
            mine = [q for q in questions if q.examiner is examiner]
            verdicts = await examined(examiner, [q.distinct() for q in mine], host)
            for question, verdict in zip(mine, verdicts, strict=True):
                rulings[id(question)] = Ruling(examiner.policy, verdict, question.id)
        return [rulings[id(question)] for question in questions]


@dataclass(frozen=True)
class About:
    """What a question is about."""

    stage: Stage
    call: Mapping[str, Any] | None = None
    answer: str | None = None
    passed: frozenset[str] = frozenset()
    """Marks of media that may be shown."""

    @property
    def separator(self) -> list[BaseMessage]:
        """What keeps earlier results apart from the one that is judged."""
        return [AIMessage(content="")] if self.stage == "tool_result" else []


@dataclass(frozen=True)
class Reading:
    """Reads one thing to be judged, in as many pieces as the limit of pictures asks for."""

    policy: Policy
    pictures: PictureStore
    about: About

    def all_of(self, messages: Sequence[BaseMessage], own: Conversation) -> Iterator[Subject]:
        """Yield subjects that show every picture of ``own``; the rest as far as it fits."""
        about = self.about
        if not messages:
            messages = [HumanMessage("")]
        examination = Examination(list(messages), about.stage, about.call, about.answer)
        subject = examination.subject(self.policy, self.pictures)
        yield subject
        mine = {id(message) for message in own}
        places = sorted({each.message_index for each in subject.turn.left_out})
        missed = [messages[place] for place in places if id(messages[place]) in mine]
        if not missed:
            return
        words = [m for m in messages if m.type == "human" and isinstance(m.content, str)]
        for half in halves(missed):
            yield from self.all_of([*words, *about.separator, *half], half)


def placed(subject: Subject, places: Sequence[int]) -> Subject:
    """Return a subject whose media say where they stand in the whole conversation.

    What the subject itself brought stands behind it.
    """
    after = places[-1] + 1 if places else 0

    def place(index: int) -> int:
        return places[index] if 0 <= index < len(places) else after + index - len(places)

    turn = subject.turn
    images = tuple(replace(i, message_index=place(i.message_index)) for i in turn.images)
    skipped, left_out = (
        tuple(
            each.model_copy(update={"message_index": place(each.message_index)}) for each in unseen
        )
        for unseen in (turn.skipped, turn.left_out)
    )
    return replace(subject, turn=replace(turn, images=images, skipped=skipped, left_out=left_out))


async def examined(
    examiner: Examiner, groups: Sequence[Sequence[Subject]], host: Host
) -> list[Verdict]:
    """Return one verdict on each group of subjects: the gravest finding decides."""
    subjects = [subject for group in groups for subject in group]
    found = {id(subject): examiner.settled(subject) for subject in subjects}
    asked = [subject for subject in subjects if found[id(subject)] is None]
    if asked:
        judged = await examiner.judged(asked, host)
        found.update({id(s): finding for s, finding in zip(asked, judged, strict=True)})
    conclude = partial(_concluded, examiner, groups, found)
    return await host.call(conclude)  # whoever is told of verdicts may block


def _concluded(
    examiner: Examiner,
    groups: Sequence[Sequence[Subject]],
    found: Mapping[int, Finding | None],
) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for group in groups:
        pairs = [(subject, finding) for subject in group if (finding := found[id(subject)])]
        subject, finding = max(pairs, key=lambda pair: pair[1].gravity)
        verdicts.append(examiner.conclude(subject, finding))
    return verdicts


def _unreadable(examiner: Examiner, about: About, error: GuardError) -> Verdict:
    """Return the verdict on what cannot even be read."""
    reason = f"{type(error).__name__}: {error.message}"
    skipped = SkippedMedia(message_index=-1, block_index=-1, kind="unreadable", reason=reason)
    turn = Turn((TurnMessage("user", ()),), skipped=(skipped,))
    decision = unjudgeable(examiner.policy, about.stage)
    return examiner.conclude(Subject(about.stage, turn, run=run_of(None)), Finding(decision))


def reason_of(verdict: Verdict) -> str:
    """Return why a verdict does not let something pass, in one line."""
    review = verdict.review
    if review is not None and review.decision == "reject":
        return f"rejected by {review.by}"
    if verdict.error is not None:
        return f"the check failed: {verdict.error}"
    if verdict.media_skipped:
        return f"it cannot be judged: {verdict.media_skipped[0].reason}"
    p = "" if verdict.p_unsafe is None else f", p {verdict.p_unsafe:.2f}"
    hazards = "".join(f", {category}" for category in verdict.categories)
    why = f": {verdict.rationale}" if verdict.rationale else ""
    return f"judged {verdict.label} by policy {verdict.policy.name!r}{p}{hazards}{why}"
