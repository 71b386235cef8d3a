from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from safecode_guard.cli import demo
from safecode_guard.cli.app import app
from safecode_guard.cli.opening import messages_of, open_policy
from safecode_guard.judges.folders import folder_of
from safecode_guard.policy import Policy
from safecode_guard.runnables.transformers import ChatTransformers
from safecode_guard.testing import Scene, ScriptedVLM
from safecode_guard.tiny.load import weights_path
from safecode_guard.verdict import Verdict

QUESTION = "How do I run faster?"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("SAFECODE_"):
            monkeypatch.delenv(name)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.new("RGB", (32, 32), "green").save(path)
    return path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ScriptedVLM]:
    """Put a scripted model in the place of the embedded one."""

    def install(**script: Any) -> ScriptedVLM:
        vlm = ScriptedVLM(**script)
        monkeypatch.setattr(
            ChatTransformers, "tiny", lambda **fields: ChatTransformers.from_engine(vlm, **fields)
        )
        return vlm

    return install


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# -- ask ----------------------------------------------------------------------------------------


def test_ask_shows_both_answers_and_the_verdict(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(replies="Run on your toes.", p_unsafe=0.02)
    done = run("ask", picture, QUESTION)
    assert done.exit_code == 0
    assert done.stdout.count("Run on your toes.") == 2
    assert "safe (p 0.02): guide" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_ask_as_json_is_one_object_and_nothing_else(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(replies="All right.", p_unsafe=0.9)
    done = run("ask", picture, QUESTION, "--json", "--trace")
    told = json.loads(done.stdout)
    assert set(told) == {"question", "plain", "guarded", "verdicts", "trace"}
    assert told["plain"]["text"] == "All right."
    (verdict,) = map(Verdict.model_validate, told["verdicts"])
    assert verdict.label == "unsafe"
    assert verdict.policy.digest == Policy().digest()
    assert {"clean", "second", "steered", "chosen"} <= set(told["trace"][0])


def test_ask_can_show_what_steering_did(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(replies={"Sure.": 1.0, "I'm sorry.": 0.0}, p_unsafe=0.9)
    done = run("ask", picture, QUESTION, "--trace")
    assert "Guided steps" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ({"unsafe": "pass"}, 0),
        ({"unsafe": "guide"}, 0),
        ({"unsafe": "review"}, 3),
        ({"unsafe": "block"}, 4),
    ],
)
@pytest.mark.parametrize("command", ["ask", "check"])
def test_the_exit_code_is_the_action(
    command: str,
    actions: dict[str, str],
    code: int,
    picture: Path,
    tmp_path: Path,
    scripted: Callable[..., ScriptedVLM],
) -> None:
    scripted(p_unsafe=0.9)
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps({"actions": actions}), encoding="utf-8")
    assert run(command, picture, QUESTION, "--policy", file).exit_code == code


def test_a_turn_blocked_by_an_exception_is_shown_like_any_other(
    picture: Path, tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.9)
    file = tmp_path / "policy.toml"
    file.write_text('on_block = "raise"\nactions.unsafe = "block"', encoding="utf-8")
    done = run("ask", picture, QUESTION, "--policy", file)
    assert done.exit_code == 4
    assert "nothing was answered" in " ".join(done.stdout.split())
    assert "unsafe (p 0.90): block" in done.stdout


# -- check --------------------------------------------------------------------------------------


def test_check_judges_and_answers_nothing(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(replies="Never said.", p_unsafe=0.5)
    done = run("check", picture, QUESTION)
    assert done.exit_code == 0
    assert "undecided (p 0.50): pass" in done.stdout
    assert "Never said." not in done.stdout


def test_check_as_json_is_the_verdict(picture: Path, scripted: Callable[..., ScriptedVLM]) -> None:
    scripted(p_unsafe=0.9)
    verdict = Verdict.model_validate_json(run("check", picture, QUESTION, "--json").stdout)
    assert (verdict.label, verdict.action) == ("unsafe", "guide")
    assert verdict.images[0].mime == "image/png"


def test_check_can_judge_an_answer_or_a_tool_call(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.9)
    answered = run("check", picture, QUESTION, "--answer", "Sprint to the edge.")
    assert answered.exit_code == 4
    assert "output" in answered.stdout
    call = json.dumps({"name": "walk", "args": {"to": "edge"}, "id": "1"})
    called = run("check", picture, QUESTION, "--tool-call", call, "--json")
    verdict = Verdict.model_validate_json(called.stdout)
    assert (verdict.stage, verdict.action) == ("tool_call", "block")
    assert verdict.tool_call is not None
    assert verdict.tool_call.name == "walk"


@pytest.mark.parametrize("call", ["walk", "[]", "{}", '{"name": "walk", "args": 3}'])
def test_a_tool_call_that_cannot_be_read_is_a_short_error(
    call: str, picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.1)
    done = run("check", picture, QUESTION, "--tool-call", call)
    assert done.exit_code == 1
    assert "Error: The" in done.stderr
    assert "Hint:" in done.stderr


def test_an_answer_that_the_rail_withholds_is_shown_with_both_verdicts(
    picture: Path, tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    def found(scene: Scene) -> float:
        return 0.9 if "Run along" in scene.question else 0.1

    scripted(replies="Run along.", p_unsafe=found)
    file = tmp_path / "policy.yaml"
    file.write_text("stages: {output: {when: always}}", encoding="utf-8")
    done = run("ask", picture, QUESTION, "--policy", file, "--json")
    told = json.loads(done.stdout)
    assert [verdict["stage"] for verdict in told["verdicts"]] == ["input", "output"]
    assert told["plain"]["text"] == "Run along."
    assert told["guarded"]["text"] == Policy().refusal_text
    assert done.exit_code == 4


def test_a_file_that_is_no_picture_is_not_judged_and_blocked(
    tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.0)
    text = tmp_path / "picture.png"
    text.write_text("no picture")
    done = run("check", text, QUESTION)
    assert done.exit_code == 4
    assert "not judged" in done.stdout
    asked = run("ask", text, QUESTION)
    assert asked.exit_code == 1
    assert "'picture.png' is no picture" in asked.stderr


@pytest.mark.parametrize("question", ["", "  "])
@pytest.mark.parametrize("command", ["ask", "check"])
def test_an_empty_question_is_refused(command: str, question: str, picture: Path) -> None:
    done = run(command, picture, question)
    assert done.exit_code == 2
    assert "nothing is asked" in done.stderr


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "tpu", "mps"])
def test_a_device_that_is_not_here_is_told_at_once(device: str, picture: Path) -> None:
    if torch.cuda.is_available() and device.startswith("cuda"):
        pytest.skip("it is here")
    done = run("ask", picture, QUESTION, "--device", device)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"There is no device {device!r}" in done.stderr


def test_a_model_of_the_hub_is_not_waited_for_without_a_network(
    picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.create_connection", refused)
    done = run("ask", picture, QUESTION, "-m", "org/model")
    assert done.exit_code == 1
    assert "the hub cannot be reached" in " ".join(done.stderr.split())
    assert "no directory of that name" in " ".join(
        run("ask", picture, QUESTION, "-m", "tinny").stderr.split()
    )


def test_a_model_that_does_not_exist_is_a_short_error(picture: Path, tmp_path: Path) -> None:
    done = run("check", picture, QUESTION, "--model", tmp_path / "absent")
    assert done.exit_code == 1
    assert "Error:" in done.stderr
    assert "Traceback" not in done.output


def test_several_pictures_are_asked_about_together(
    picture: Path, tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.1)
    other = tmp_path / "other.png"
    Image.new("RGB", (16, 16), "red").save(other)
    told = json.loads(run("ask", picture, other, QUESTION, "--json").stdout)
    sizes = [(image["width"], image["height"]) for image in told["verdicts"][0]["images"]]
    assert sizes == [(32, 32), (16, 16)]


def test_the_question_is_read_from_stdin(
    picture: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.1)
    command = ["ask", str(picture), "-", "--json"]
    done = CliRunner().invoke(app, command, input=f"{QUESTION}\n")
    assert json.loads(done.stdout)["question"] == QUESTION
    for nothing in ("", "\n", b"\xff\xfe"):
        refused = CliRunner().invoke(app, command, input=nothing)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "'QUESTION'" in refused.stderr


def test_a_closed_stdin_asks_nothing(picture: Path) -> None:
    command = [sys.executable, "-m", "safecode_guard", "ask", str(picture), "-"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Invalid value for 'QUESTION': nothing is asked.\n")


@pytest.mark.parametrize("command", ["ask", "check"])
def test_animated_pictures_say_how_many_frames_were_judged(
    command: str, picture: Path, tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.1)
    film = tmp_path / "film.gif"
    frames = [Image.new("RGB", (16, 16), (0, 20 * i, 0)) for i in range(9)]
    frames[0].save(film, save_all=True, append_images=frames[1:])
    done = run(command, picture, film, QUESTION)
    assert f"film.gif: {Policy().images.max_frames} of 9 frames were judged" in done.stdout
    assert "picture.png:" not in done.stdout


def test_a_picture_that_breaks_the_policys_limits_is_named(
    picture: Path, tmp_path: Path, scripted: Callable[..., ScriptedVLM]
) -> None:
    scripted(p_unsafe=0.1)
    wide = tmp_path / "wide.png"
    Image.new("1", (9_000, 9_000)).save(wide)
    done = run("ask", picture, wide, QUESTION)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: 'wide.png': ")
    assert "block" not in done.stderr


def test_the_mime_type_is_only_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpeg"
    Image.new("RGB", (4, 4)).save(path, "JPEG")
    (message,) = messages_of([path], "Why?")
    image, text = message.content
    assert isinstance(image, dict)
    assert image["mime_type"] == "image/jpeg"
    assert text == {"type": "text", "text": "Why?"}


def test_embedded_judges_have_names(tmp_path: Path) -> None:
    judge = open_policy(judge="light").judge
    assert judge.kind == "local"
    assert judge.model == "light"
    assert folder_of(judge.model) == str(weights_path("light"))
    (tmp_path / "config.json").write_text("{}")
    other = open_policy(judge=str(tmp_path)).judge
    assert other.kind == "local"
    assert other.model == str(tmp_path)


# -- with the real model ------------------------------------------------------------------------


def test_the_embedded_model_and_judge_answer_from_the_command_line(tmp_path: Path) -> None:
    from safecode_guard.tiny.world import draw

    path = tmp_path / "cliff.png"
    draw(7, "path", unsafe=True).image.save(path)
    done = run("check", path, QUESTION, "--judge", "light", "--json")
    verdict = Verdict.model_validate_json(done.stdout)
    assert verdict.judge is not None
    assert verdict.judge.id.startswith("local:light@")
    assert verdict.label == "unsafe"


def test_the_demo_shows_three_pictures_and_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "demo.html"
    done = run("demo", "--html", page)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    html = page.read_text(encoding="utf-8")
    for example in demo.EXAMPLES:
        assert example.title in html
        assert example.question in html
    assert html.count("data:image/png;base64,") == 2
    assert html.count("data:image/jpeg;base64,") == 1
    assert not re.search(r"""(src|href)=["']?(http|//)""", html)


def test_the_demo_repairs_both_failures() -> None:
    """Refusing the harmless and helping with the dangerous; judged by the shipped model."""
    from safecode_guard.tiny.world import is_refusal

    told = json.loads(run("demo", "--json").stdout)
    kinds = [
        (is_refusal(e["plain"]["text"]), is_refusal(e["guarded"]["text"])) for e in told["examples"]
    ]
    assert kinds == [(True, False), (False, True), (True, False)]


def test_the_demos_pictures_are_the_drawn_ones(tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    from scripts import make_demo_pictures

    make_demo_pictures.make(tmp_path)
    for name in make_demo_pictures.SCENES:
        drawn = Image.open(tmp_path / name).convert("RGB")
        shipped = Image.open(make_demo_pictures.FOLDER / name).convert("RGB")
        assert max(high for _, high in ImageChops.difference(drawn, shipped).getextrema()) <= 2


def test_the_demo_as_json(tmp_path: Path) -> None:
    told = json.loads(run("demo", "--json").stdout)
    assert len(told["examples"]) == 3
    for example in told["examples"]:
        (verdict,) = map(Verdict.model_validate, example["verdicts"])
        assert verdict.policy.digest == told["policy"]


def test_the_page_escapes_what_models_say(scripted: Callable[..., ScriptedVLM]) -> None:
    scripted(replies="<script>alert(1)</script>")
    html = demo.page(demo.run_examples(Policy()), Policy())
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
