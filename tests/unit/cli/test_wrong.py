"""Wrong inputs to the command line: one line, perhaps a hint, the right exit code, no traceback."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from safecode_guard.cli.app import app

ASK, CHECK, PAIRED = "ask p.png Why?", "check p.png Why?", "bench paired"

WRONG = [
    # what is typed, exit code, what the line and its hint name
    ("chek p.png Why?", 2, "'check'"),
    ("fly", 2, "'fly'"),
    ("ask", 2, "'IMAGE"),
    ("ask absent.png Why?", 2, "'absent.png'"),
    ("ask folder Why?", 2, "'folder'"),
    ("ask text.png Why?", 1, "'text.png'"),
    ("ask p.png ''", 2, "nothing is asked"),
    ("check p.png '  '", 2, "nothing is asked"),
    (f"{ASK} --devise cpu", 2, "--device"),
    (f"{ASK} --device cuda:99", 1, "'cuda:99'"),
    (f"{ASK} --device tpu", 1, "'tpu'"),
    (f"{ASK} --device cuda:x", 1, "'cuda:x'"),
    (f"{ASK} --max-tokens 0", 2, "'--max-tokens'"),
    (f"{ASK} --max-tokens ten", 2, "'--max-tokens'"),
    (f"{ASK} --max-tokens", 2, "'--max-tokens'"),
    (f"{ASK} -m foldr", 1, "'folder'"),
    (f"{ASK} -m org/absent", 1, "'org/absent'"),
    (f"{ASK} -m folder", 1, "'folder'"),
    (f"{ASK} -m text.png", 1, "'text.png'"),
    (f"{ASK} --judge lihgt", 1, "'light'"),
    (f"{CHECK} --judge http://host:1", 1, "'http://host:1'"),
    (f"{CHECK} --judge openai:", 1, "endpoint"),
    (f"{CHECK} --judge folder", 1, "'folder'"),
    (f"{CHECK} --preset stirct", 2, "'strict'"),
    (f"{CHECK} --policy absent.toml", 1, "'absent.toml'"),
    (f"{CHECK} --policy folder", 1, "'folder'"),
    (f"{CHECK} --policy broken.toml", 1, "'broken.toml'"),
    (f"{CHECK} --policy list.yaml", 1, "'list.yaml'"),
    (f"{CHECK} --policy binary.toml", 1, "'binary.toml'"),
    (f"{CHECK} --policy range.toml", 1, "thresholds.unsafe"),
    (f"{CHECK} --policy type.toml", 1, "thresholds"),
    (f"{CHECK} --policy text.png", 1, "'.png'"),
    (f"{CHECK} --tool-call walk", 1, "tool call"),
    (f"{CHECK} --tool-call []", 1, "tool call"),
    ("demo --html absent/x.html", 2, "'--html'"),
    ("demo --html folder", 2, "'folder'"),
    ("doctor --judge nanno", 1, "'nano'"),
    ("policy shwo", 2, "'show'"),
    ("policy show absent.toml", 1, "'absent.toml'"),
    ("policy validate broken.toml", 1, "'broken.toml'"),
    ("policy show -m folder", 2, "--effective"),
    ("policy show --effective -m foldr", 1, "'folder'"),
    ("policy show --effective -m folder", 1, "config.json"),
    ("policy show --preset x", 2, "balanced, strict, permissive"),
    ("audit verify absent.log", 1, "'absent.log'"),
    ("audit verify folder", 2, "'folder'"),
    ("audit tail text.png", 1, "'text.png'"),
    ("audit stats text.png", 1, "'text.png'"),
    ("audit tail text.png -n 0", 2, "--count"),
    ("refusals -m absent", 1, "'absent'"),
    ("refusals -l xx", 1, "'xx'"),
    ("refusals --phrase ''", 1, "phrase"),
    ("serve --port 99999", 2, "'--port'"),
    ("serve --host 0.0.0.0", 1, "0.0.0.0"),
    ("serve --keys absent", 1, "'absent'"),
    ("serve --keys binary.toml", 1, "'binary.toml'"),
    ("serve --audit folder", 2, "'--audit'"),
    ("serve --upstream http://x", 1, "'http://x'"),
    ("bench fats", 2, "'fats'"),
    (f"{PAIRED} --pares 3", 2, "'--pairs'"),
    (f"{PAIRED} 3", 2, "'3'"),
    (f"{PAIRED} --pairs x", 2, "--pairs"),
    (f"{PAIRED} --pairs 0", 2, "--pairs"),
    (f"{PAIRED} --rows guardd", 2, "'guarded'"),
    (f"{PAIRED} --rows ras", 2, "--prototypes"),
    (f"{PAIRED} --judges lihgt", 1, "'light'"),
    (f"{PAIRED} --judges ras", 1, "'ras'"),
    (f"{PAIRED} --judges ''", 1, "judge"),
    (f"{PAIRED} --shift compresed", 2, "'compressed'"),
    (f"{PAIRED} --model absent", 2, "--model"),
    (f"{PAIRED} --model folder", 2, "config.json"),
    (f"{PAIRED} --data absent.jsonl", 2, "'absent.jsonl'"),
    (f"{PAIRED} --data broken.jsonl", 1, "'broken.jsonl'"),
    (f"{PAIRED} --data folder", 2, "--data"),
    (f"{PAIRED} --html absent/x.html", 2, "--html"),
    (f"{PAIRED} --resume folder", 2, "--resume"),
    ("bench speed --rounds 0", 2, "'--rounds'"),
    ("bench speed --rows trun", 2, "'turn'"),
    ("bench speed --model absent", 1, "'absent'"),
    ("bench speed --rowz x", 2, "--rows"),
    ("bench calls --rows orderd", 2, "'ordered'"),
    ("bench calls --judges lihgt", 1, "'light'"),
    ("bench sweep --judges lihgt", 1, "'light'"),
    ("bench run", 2, "--benchmark"),
    ("bench run --benchmark msbench", 2, "'mssbench'"),
    ("bench run --benchmark figstep", 2, "--data"),
    ("bench run --benchmark figstep --data absent", 1, "'absent'"),
    ("bench run --benchmark figstep --data folder", 1, "'folder'"),
    ("bench run --benchmark drawn --device tpu", 1, "'tpu'"),
    ("bench run --benchmark drawn --grader absent", 1, "'absent'"),
    ("bench run --benchmark drawn --parts absent", 1, "'absent'"),
    ("calibrate --judge lihgt", 1, "'light'"),
    ("calibrate --target-fpr 2", 2, "--target-fpr"),
    ("calibrate --scope much", 2, "--scope"),
    ("calibrate --out absent/x.json", 2, "--out"),
    ("ras fit", 2, "--out"),
    ("ras fit --out x --pairs 1", 1, "16"),
    ("ras fti", 2, "'fit'"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with some files that are not what they should be."""
    for name in list(os.environ):
        if name.upper().startswith("SAFECODE_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "green").save("p.png")
    Path("folder").mkdir()
    Path("text.png").write_text("no picture\n")
    Path("broken.toml").write_text("x = = 1")
    Path("broken.jsonl").write_text("{\n")
    Path("list.yaml").write_text("- 1")
    Path("range.toml").write_text("thresholds.unsafe = 7")
    Path("type.toml").write_text('thresholds = "a"')
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    return tmp_path


def require_one_line(stderr: str, names: str) -> None:
    """Check that an error is a line, with at most one hint, in words and not in Python's."""
    lines = stderr.splitlines()
    assert re.match(r"Error: \S", lines[0]), stderr
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("Hint: ")), stderr
    assert names in stderr
    assert not re.search(r"Traceback|\['|<class|\bmessage \d|\bblock \d|Errno|Namespace", stderr)


@pytest.mark.parametrize(("typed", "code", "names"), WRONG, ids=[typed for typed, *_ in WRONG])
def test_a_wrong_input_is_one_line(typed: str, code: int, names: str) -> None:
    done = CliRunner().invoke(app, shlex.split(typed))
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    require_one_line(done.stderr, names)


def test_no_argument_shows_the_help() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 2
    assert "Usage" in done.stdout
    assert done.stderr == ""


def test_an_error_is_one_line_however_narrow_the_terminal() -> None:
    command = ["-m", "safecode_guard", "policy", "show", "absent" * 30 + ".toml"]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "40"},
    )
    assert done.returncode == 1
    require_one_line(done.stderr, "absent.toml'")


# -- Ctrl-C -------------------------------------------------------------------------------------

_STARTED = "from safecode_guard.cli import main; print('started', flush=True); main()"


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.4, 1.0, 2.0])
def test_ctrl_c_is_silent_at_any_moment(seconds: float) -> None:
    """While modules are loaded, weights are read, answers are made."""
    work = "bench paired --pairs 400 --judges nano"  # long enough to be interrupted in any case
    process = subprocess.Popen(
        [sys.executable, "-c", _STARTED, *work.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs are started deaf to it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "")
