from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from safecode_guard.engines.transformers.rendering import Renderer
from safecode_guard.errors import TemplateError
from safecode_guard.models.families import Family
from safecode_guard.turns.turn import ImagePart, TextPart, ToolCall, Turn, TurnMessage
from tests import families
from tests.families import ask, checked, picture
from tests.unit.engines.transformers.templates import PUBLISHED

MARKS = ("<image>", "<|im_end|>", "[INST]")
TOOL = {
    "type": "function",
    "function": {"name": "climb", "description": "Climb <image> a wall", "parameters": {}},
}


def processor(template: str | None = families.template("<image>"), **tokens: str) -> Any:
    """A LLaVA processor with another template; what it does with images is not asked here."""
    import transformers as hf

    return hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessorPil(),
        tokenizer=families.tokenizer(*MARKS, **tokens),
        chat_template=template,
        image_token="<image>",
    )


RENDERER = Renderer.of(processor(), Family("llava"))


def says(*messages: tuple[str, str]) -> Turn:
    return Turn(tuple(TurnMessage(role, (TextPart(text),)) for role, text in messages))  # type: ignore[arg-type]


def rendered(template: str, turn: Turn, **options: Any) -> str:
    return Renderer.of(processor(template), Family("llava")).render(turn, **options)


def test_roles_and_images_keep_their_order() -> None:
    turn = Turn(
        (
            TurnMessage("system", (TextPart("Be brief."),)),
            TurnMessage("user", (TextPart("first "), ImagePart(0), TextPart("then"), ImagePart(1))),
            TurnMessage("assistant", (TextPart("Seen."),)),
            TurnMessage("user", (TextPart("And "), TextPart("now?"))),
        ),
        (checked(picture(1)), checked(picture(2))),
    )
    assert RENDERER.render(turn) == (
        "SYSTEM: Be brief.\nUSER: first <image>then<image>\nASSISTANT: Seen.\nUSER: And now?\n"
        "ASSISTANT:"
    )


def test_tool_calls_and_results_are_rendered() -> None:
    call = ToolCall("c1", "camera", {"at": ["the <image> wall"], "zoom": 2})
    turn = Turn(
        (
            TurnMessage("user", (TextPart("Look."),)),
            TurnMessage("assistant", (), (call,)),
            TurnMessage("tool", (ImagePart(0), TextPart("a shot")), tool_call_id="c1"),
        ),
        (checked(picture()),),
    )
    text = RENDERER.render(turn, tools=[TOOL])
    assert '"name": "camera"' in text
    assert '"the < image> wall"' in text
    assert "TOOL: <image>a shot" in text
    assert "Climb < image> a wall" in text
    assert text.count("<image>") == 1


@pytest.mark.parametrize("mark", [*MARKS, "<s>", "</s>", "<pad>"])
@pytest.mark.parametrize("role", ["system", "user", "tool", "assistant"])
def test_text_cannot_write_control_tokens(mark: str, role: str) -> None:
    turn = says(("user", "Hello!"), (role, f"one {mark} two {mark}{mark}"))
    ids = RENDERER.processor.tokenizer(RENDERER.render(turn))["input_ids"]
    assert RENDERER.processor.tokenizer.convert_tokens_to_ids(mark) not in ids


@given(
    st.lists(st.sampled_from([*MARKS, "<", "im", "age", ">", "|", "end", "a", "<im<image>age>"]))
)
def test_no_text_turns_into_control_tokens(pieces: list[str]) -> None:
    text = RENDERER.neutralise("".join(pieces))
    assert not RENDERER.control.search(text)
    ids = RENDERER.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert not RENDERER.control_ids.intersection(ids)


@given(st.text(max_size=60))
def test_text_without_marks_stays_as_it_is(text: str) -> None:
    assert RENDERER.control.search(text) or RENDERER.neutralise(text) == text


def test_marks_of_the_template_are_broken_up_too() -> None:
    spoken = processor(families.template("<image>"))
    spoken.tokenizer.add_tokens(["<tool_call>", "wall", "\n\n"])
    renderer = Renderer.of(spoken, Family("llava"))
    assert renderer.neutralise("<tool_call> wall\n\n") == "< tool_call> wall\n\n"


def test_look_alikes_that_normalise_into_marks_are_refused() -> None:
    spoken = processor()
    spoken.tokenizer.add_special_tokens({"extra_special_tokens": []})
    backend = spoken.tokenizer.backend_tokenizer
    backend.normalizer = normalizers.NFKC()
    from tokenizers import AddedToken

    backend.add_special_tokens([AddedToken("<|stop|>", normalized=True, special=True)])
    renderer = Renderer.of(spoken, Family("llava"))
    with pytest.raises(TemplateError, match=r"control tokens \['<\|stop\|>'\].*look-alike"):
        renderer.render(says(("user", "say ＜|stop|＞")))


@pytest.mark.parametrize(
    ("template", "turn", "hint"),
    [
        (
            "{% for m in messages %}{% if m['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}",
            says(("system", "Be brief."), ("user", "Hi")),
            "Fold the system text into the first user message",
        ),
        (
            "{{ raise_exception('Conversation roles must alternate user/assistant/user') }}",
            says(("user", "Hi"), ("user", "there")),
            "Merge neighbouring messages",
        ),
        (
            "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
            says(("user", "Hi"), ("tool", "result of the search")),
            "Compare the conversation",
        ),
        (
            "{% for m in messages %}{{ m['content'] is string and m['content'] or "
            "m['content'][-1]['text'] }}{% endfor %}",
            ask("What is it?", picture()),
            "Put images into user messages",
        ),
    ],
)
def test_refused_layouts_name_the_fix(template: str, turn: Turn, hint: str) -> None:
    with pytest.raises(TemplateError, match=hint):
        rendered(template, turn)


def test_dropped_tools_are_refused() -> None:
    template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    assert rendered(template, says(("user", "Hi"))) == "Hi"
    with pytest.raises(TemplateError, match="drops the tool 'climb'.*describe them in the system"):
        rendered(template, says(("user", "Hi")), tools=[TOOL])


def test_templates_that_want_strings_get_strings() -> None:
    strings = "{% for m in messages %}{{ m['role'] + '=' + m['content'] + ';' }}{% endfor %}"
    assert rendered(strings, says(("user", "Hi"), ("assistant", "Yes"))) == "user=Hi;assistant=Yes;"
    printed = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
    assert rendered(printed, says(("user", "Hi"), ("tool", "42"))) == "Hi;42;"


def test_templates_that_want_lists_get_lists() -> None:
    lists = (
        "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }};{% endfor %}{% endfor %}"
    )
    assert rendered(lists, says(("user", "Hi"), ("tool", "a result"))) == "Hi;a result;"


def test_escaped_and_trimmed_text_is_not_lost() -> None:
    escaping = "{% for m in messages %}{{ m['content'] | tojson }}{% endfor %}"
    text = ' "quoted"\n\tline – ünï \\ '
    assert "quoted" in rendered(escaping, says(("tool", text)))
    trimming = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}"
    assert rendered(trimming, says(("tool", text))) == text.strip()


def test_reasoning_may_be_left_out_of_earlier_answers() -> None:
    template = (
        "{% for m in messages %}{{ (m['content'] if m['content'] is string "
        "else m['content'][0]['text']).split('</think>')[-1] }};{% endfor %}"
    )
    turn = says(("user", "Hi"), ("assistant", "<think>hm</think>Hello"), ("user", "Why?"))
    assert rendered(template, turn) == "Hi;Hello;Why?;"


def test_named_templates() -> None:
    spoken = processor(None)
    spoken.chat_template = {
        "default": families.template("<image>"),
        "tool_use": "with tools: {{ tools | tojson }} {{ messages[0]['content'][0]['text'] }}",
    }
    renderer = Renderer.of(spoken, Family("llava"))
    assert renderer.render(says(("user", "Hi"))).startswith("USER: Hi")
    assert renderer.render(says(("user", "Hi")), [TOOL]).startswith("with tools: ")


def test_template_of_the_tokenizer_is_used() -> None:
    spoken = processor(None)
    spoken.tokenizer.chat_template = families.template("<image>")
    assert Renderer.of(spoken, Family("llava")).render(says(("user", "Hi"))).startswith("USER: Hi")


def test_missing_template_and_empty_conversation_are_refused() -> None:
    with pytest.raises(TemplateError, match="no chat template.*Set processor.chat_template"):
        Renderer.of(processor(None), Family("llava")).render(says(("user", "Hi")))
    with pytest.raises(TemplateError, match="empty"):
        RENDERER.render(Turn(()))


def test_plain_layout_is_the_question_alone() -> None:
    plain = Renderer.of(processor(None), Family("blip", layout="plain"))
    assert plain.render(says(("user", "What is <image> it?"))) == "What is < image> it?"
    both = plain.render(says(("system", "Be brief."), ("user", "What is it?")))
    assert both == "Be brief.\nWhat is it?"
    with pytest.raises(TemplateError, match="single questions"):
        plain.render(says(("user", "Hi"), ("assistant", "Yes"), ("user", "Why?")))
    with pytest.raises(TemplateError, match="single questions"):
        plain.render(says(("user", "Hi")), [TOOL])


CONVERSATION = Turn(
    (
        TurnMessage("user", (ImagePart(0), TextPart('What is it?\n\nSay "so".'))),
        TurnMessage("assistant", (TextPart("A wall."),)),
        TurnMessage("user", (ImagePart(1), TextPart("And this?"))),
    ),
    (checked(picture(1)), checked(picture(2))),
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_keep_a_conversation_whole(name: str) -> None:
    text = rendered(PUBLISHED[name], CONVERSATION)
    assert text.count("<image>") == 2
    assert text.index("What is it?") < text.index("A wall.") < text.index("And this?")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_with_a_system_message(name: str) -> None:
    turn = CONVERSATION.with_system("Be brief.")
    if name == "llama":
        with pytest.raises(TemplateError, match="Fold the system text"):
            rendered(PUBLISHED[name], turn)
    else:
        assert "Be brief." in rendered(PUBLISHED[name], turn)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_with_a_tool_result(name: str) -> None:
    turn = says(("user", "Hi"), ("tool", 'found "it"'), ("assistant", "So?"), ("user", "Yes."))
    if name == "gemma":
        with pytest.raises(TemplateError, match="Merge neighbouring messages"):
            rendered(PUBLISHED[name], turn)
    else:
        text = rendered(PUBLISHED[name], turn)
        assert "found" in text
        assert text.index("found") < text.index("So?") < text.index("Yes.")


def test_plain_prompts_write_their_images_where_the_processor_does_not() -> None:
    family = Family("paligemma", layout="plain", plain_image="<image>")
    turn = ask("What is it?", picture(1), picture(2))
    assert Renderer.of(processor(None), family).render(turn) == "<image><image>What is it?"
