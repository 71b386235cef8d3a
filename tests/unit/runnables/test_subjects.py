"""From messages to what is examined of them."""

import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue

from safecode_guard.errors import PolicyError, UnreadableCall
from safecode_guard.policy import Policy
from safecode_guard.runnables.subjects import Examination, messages_of
from safecode_guard.turns.pictures import PictureStore
from tests.messages import ask, image_block, text_block

CALL = {"name": "look", "args": {"at": "cliff"}, "id": "1"}
CALLING = AIMessage("", tool_calls=[CALL])


def subject(messages, *args, policy=None, **options):
    examination = Examination(messages, *args, **options)
    return examination.subject(policy or Policy(), PictureStore(0))


@pytest.mark.parametrize(
    "given",
    [
        "Hello",
        [HumanMessage("Hello")],
        [("user", "Hello")],
        [{"role": "user", "content": "Hello"}],
        StringPromptValue(text="Hello"),
        ChatPromptValue(messages=[HumanMessage("Hello")]),
    ],
)
def test_every_input_of_a_chat_model_is_read(given):
    assert [message.content for message in messages_of(given)] == ["Hello"]


def test_a_turn_is_the_subject_unless_there_is_a_call():
    assert subject(ask()).stage == "input"
    found = subject(ask(), tool_call=CALL)
    assert (found.stage, found.tool) == ("tool_call", "look")
    assert found.tool_call.arguments == {"at": "cliff"}


@pytest.mark.parametrize("stage", ["tool_result", "output"])
def test_a_call_may_come_with_another_stage(stage):
    last = ToolMessage("seen", tool_call_id="1") if stage == "tool_result" else AIMessage("So")
    found = subject([*ask(), CALLING, last], stage, CALL)
    assert (found.stage, found.tool) == (stage, "look")


def test_of_a_result_the_last_tool_messages_are_examined():
    earlier = [*ask("Look.", "red"), CALLING, ToolMessage("old", tool_call_id="1"), AIMessage("So")]
    results = [
        ToolMessage([image_block("blue"), text_block("one")], tool_call_id="1"),
        ToolMessage("two", tool_call_id="2"),
    ]
    found = subject([*earlier, CALLING, *results], "tool_result")
    assert found.result == "one\ntwo"
    assert (len(found.turn.images), found.own_images) == (2, 1)


def test_of_an_answer_the_last_message_is_examined_or_the_text_that_is_given():
    answered = [*ask(), AIMessage("Run.")]
    assert subject(answered, "output").answer == "Run."
    assert subject(answered, "output", answer="Jump.").answer == "Jump."
    assert subject(ask(), "output", answer="").answer == ""


def test_a_picture_in_an_answer_is_its_own():
    drawn = AIMessage([image_block("blue")], response_metadata={"model_provider": "anthropic"})
    found = subject([*ask(), drawn], "output")
    assert (len(found.turn.images), found.own_images) == (2, 1)
    assert subject([*ask(), AIMessage("Run.")], "output").own_images == 0


def test_the_deadline_counts_from_the_call():
    policy, began = Policy(deadline_s=60), time.monotonic()
    assert subject(ask(), policy=policy, started=began - 20).deadline == began + 40
    assert subject(ask(), policy=policy).deadline == pytest.approx(began + 60, abs=5)
    assert subject(ask()).deadline is None


def test_what_cannot_be_examined_is_refused():
    with pytest.raises(PolicyError, match=r"'later'.*input"):
        subject(ask(), "later")
    with pytest.raises(PolicyError, match="needs a call"):
        subject(ask(), "tool_call")
    for call in ({}, {"name": ""}, {"name": "look", "args": "cliff"}):
        with pytest.raises(UnreadableCall):
            subject(ask(), tool_call=call)
