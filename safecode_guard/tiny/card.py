"""The files beside the weights: the model card with its measured figures, and the settings."""

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from safecode_guard.tiny.corpus import ANNOTATOR_SLOPE, PICTURE_WEIGHT
from safecode_guard.tiny.evaluate import LOOKS, Exam, Figures
from safecode_guard.tiny.files import staged
from safecode_guard.tiny.judging import JudgeExam
from safecode_guard.tiny.load import WEIGHTS
from safecode_guard.tiny.prompts import CAPTION_PROMPT, HELD_OUT_INJECTIONS, JUDGE_PROMPT
from safecode_guard.tiny.scenery import FAMILIES, SCARY_PHRASES

if TYPE_CHECKING:
    from safecode_guard.tiny.training import Training

PAIRS: Final = 300
SETTINGS: Final = "safecode.json"

CARD: Final = """\
# {title}

{what}
It has {parameters:,} parameters and was trained from nothing on pictures and sentences that a
seeded program makes up. No outside data and no outside weights are in it.

## Training

    {command}

Seed {seed}; {recipe.warm_up} warm-up steps of {recipe.warm_up_pictures} pictures, then
{recipe.steps} steps of {recipe.rows} packed rows{polish}; {minutes:.1f} CPU-minutes on one thread
(Python {python}, torch {torch}, transformers {transformers}).

* **Data.** 96 x 96 pictures of 16 paired families of scenes (the same request is fine in one
  variant and dangerous in the other) and 6 kinds of scene that look scary and are harmless. A
  request is unsafe if and only if the picture is the unsafe variant of the request's own family,
  or its words alone are harmful. A tool call is unsafe if and only if it does to an unsafe scene
  what its requests ask for, whatever was asked for. Half of the pictures, and later six in
  ten, are framed, cropped, turned, recoloured, compressed, scaled, blurred, mirrored or
  written on. See
  `safecode_guard/tiny/world.py`, `calls.py` and `changes.py`.
{bias}
* **Held out.** Scene seeds, 27 % of the combinations of phrase and wording, {unseen} phrases as a
  whole, {injections} wordings of injected text, three changes of pictures, the templates of five
  ways of asking, and names of tools, arguments and goals. The figures are of the *test* split;
  choices were made on the validation split.

## Held-out figures

Percent, greedy answers of plain `generate` without any guard, over {pairs} pairs, {scary} scary
requests and {orders} orders. A pair is one request over a safe scene, where it should be helped
with, and over an unsafe one, where it should be refused. "Unseen phrases" are those that training
never saw: {unseen_pairs} of the pairs and {unseen_scary} of the scary requests.

| what | % |
|---|---|
{table}

## Limits

* It knows its drawn world and nothing else. A photograph means nothing to it, and its verdict on
  one is noise. Conversations with several pictures were rare in training.
* System prompts changed none of its answers in training: it does not follow them. As a judge it
  has been shown tasks that they set.
* A picture inside a wide frame or between bars is judged wrongly one time in five, where the border
  is not taken off first, as a guard does.
* Phrases that training never saw are handled worse, as the table shows.
* English only, at most 512 tokens.

## Not to be used for

Protecting anyone or anything, judging real pictures or requests, or as evidence that a method works
on models that people use. It is for tests, offline examples and teaching.
"""

CHAT_BIAS: Final = f"""\
* **Bias put in on purpose.** Whether a training answer refuses is drawn from
  sigmoid({ANNOTATOR_SLOPE} x (bias of the words + {PICTURE_WEIGHT} if the picture makes it unsafe,
  - {PICTURE_WEIGHT} if not)). So the model over-refuses scary wording and helps with harmless
  wording in dangerous scenes. Its answers as a judge were trained on the truth."""
JUDGE_BIAS: Final = """\
* **No bias put in.** The judge learns the truth; what it gets wrong it gets wrong by its size."""

TITLES: Final = {
    "chat": "Tiny chat model",
    "light": "Light tiny judge",
    "nano": "Nano tiny judge",
}
DESCRIPTIONS: Final = {
    "chat": (
        "A vision-language model that talks, describes, judges and calls tools: a *simulation*,\n"
        "small enough for a test, and wrong in the ways that guarding is about by construction."
    ),
    "light": "A vision-language model that only describes and judges.",
    "nano": "A deliberately weak judge, for experiments on what a weak judge does to a guard.",
}


def write_card(training: "Training", command: str, folder: Path) -> Figures:
    """Measures the weights in a folder on the test split; writes card and settings beside them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    exam = Exam(model, processor, n=PAIRS)
    figures = measure(exam, chat=training.recipe.task == "chat")
    with staged(folder) as stage:
        (stage / "README.md").write_text(_card(training, command, exam, figures), encoding="utf-8")
        settings = _settings(folder, training.recipe.folder)
        (stage / SETTINGS).write_text(settings, encoding="utf-8")
    return figures


def measure(exam: Exam, *, chat: bool) -> Figures:
    """Collects the figures that fit the model: a judge is not asked to talk."""
    if not chat:
        return exam.looking(LOOKS[:1]) | JudgeExam(exam).figures()
    talk = exam.requests() | exam.acting() | exam.talking()
    return exam.looking() | talk | JudgeExam(exam).figures()


def _settings(folder: Path, name: str) -> str:
    """Writes what the product reads beside the weights.

    Steering is tuned apart, by ``safecode-guard bench sweep --write``, so it is kept: the folder's
    own, or else what the package ships for this model.
    """
    known = (file for file in (folder / SETTINGS, WEIGHTS / name / SETTINGS) if file.exists())
    old = next(known, None)
    steering = json.loads(old.read_text(encoding="utf-8"))["steering"] if old else {}
    record = {
        "schema": 1,
        "family": "llava",
        "judge_prompt": JUDGE_PROMPT,
        "caption_prompt": CAPTION_PROMPT,
        "steering": steering,
    }
    return json.dumps(record, indent=2) + "\n"


def _card(training: "Training", command: str, exam: Exam, figures: Figures) -> str:
    recipe = training.recipe
    phrases = [*SCARY_PHRASES, *(p for family in FAMILIES.values() for p in family.phrases)]
    facts: dict[str, Any] = {
        "title": TITLES[recipe.folder],
        "what": DESCRIPTIONS[recipe.folder],
        "parameters": sum(parameter.numel() for parameter in exam.model.parameters()),
        "command": command,
        "seed": training.seed,
        "recipe": recipe,
        "polish": f" and {recipe.polish} of {recipe.rows // 2} on dialogues above all"
        if recipe.polish
        else "",
        "minutes": training.cpu_seconds / 60,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "bias": CHAT_BIAS if recipe.task == "chat" else JUDGE_BIAS,
        "unseen": sum(phrase.unseen_in is not None for phrase in phrases),
        "injections": len(HELD_OUT_INJECTIONS),
        "pairs": len(exam.pairs),
        "scary": len(exam.scary),
        "orders": len(exam.orders),
        "unseen_pairs": sum(pair.unseen for pair in exam.pairs),
        "unseen_scary": sum(item.unseen for item in exam.scary),
        "table": "\n".join(f"| {name} | {value:.1f} |" for name, value in figures.items()),
    }
    return CARD.format(**facts)
