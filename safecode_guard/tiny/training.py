"""A training of a tiny model from nothing, which can stop after any step and go on.

One thread, fixed seeds, schedules in steps: the same command gives the same weights on the same
machine. A training first warms the vision layers up on what the pictures show, then learns from
packed rows. It can be stopped at any time and resumed from its last checkpoint.
"""

import os
import random
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from tqdm import tqdm

from safecode_guard.tiny import network
from safecode_guard.tiny.corpus import Corpus, Task, texts
from safecode_guard.tiny.files import staged
from safecode_guard.tiny.mixes import FIRST, LATER, POLISH
from safecode_guard.tiny.packing import Packer, pictures
from safecode_guard.tiny.tokens import build_processor, build_tokenizer
from safecode_guard.tiny.world import draw, scene_seed

LEARNING_RATE: Final = 3e-3
POLISH_RATE: Final = 0.3
BETAS: Final = (0.9, 0.98)
ROWS: Final = 24
WARM_UP_PICTURES: Final = 96
ATTRIBUTE_SHARE: Final = 0.1
CHECKPOINT_EVERY: Final = 50
PROBE_EVERY: Final = 100
CHECKPOINT: Final = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """What to train, and for how long.

    Attributes:
        folder: The folder of its weights inside the package.
        task: Whether it learns to talk, or only to look and to judge.
        warm_up: Steps in which only the vision layers learn.
        steps: Steps on packed rows that follow.
        fall: How steeply the learning rate falls to its end; it is held before.
        later: The step, counted from the very first, from which on the later mix is learnt.
        polish: Steps at the very end, of half as many rows and at a low rate, on the last mix.
    """

    folder: str
    task: Task
    width: int
    vision_layers: int
    text_layers: int
    warm_up: int
    steps: int
    fall: float = 1.6
    rows: int = ROWS
    warm_up_pictures: int = WARM_UP_PICTURES
    later: int | None = None
    polish: int = 0


RECIPES: Final = {
    "chat": Recipe(
        "chat", "chat", 128, 4, 4, warm_up=240, steps=1200, fall=2.2, later=700, polish=220
    ),
    "judge": Recipe("light", "judge", 64, 3, 3, warm_up=240, steps=2200, later=1300),
    "nano": Recipe("nano", "judge", 32, 2, 2, warm_up=120, steps=520, later=340),
}


class Training:
    """A training that can stop after any step and go on as if it had not.

    Example:
        >>> training = Training(RECIPES["nano"], seed=0)  # doctest: +SKIP
        >>> loss = training.advance()  # doctest: +SKIP
    """

    def __init__(self, recipe: Recipe, *, seed: int = 0, tokenizer: Any = None) -> None:
        self.recipe = recipe
        self.seed = seed
        self.step = 0
        self.cpu_seconds = 0.0
        self.tokenizer = tokenizer or build_tokenizer(texts())
        torch.manual_seed(seed)
        self.network = network.build_network(
            self.tokenizer.get_vocab_size(),
            width=recipe.width,
            vision_layers=recipe.vision_layers,
            text_layers=recipe.text_layers,
        )
        self.heads = network.AttributeHeads(recipe.width)
        self.packer = Packer(self.tokenizer)
        self.optimizers = self._optimizers()

    @property
    def total(self) -> int:
        """Counts all steps, those of the warm-up and of the polish included."""
        return self.recipe.warm_up + self.recipe.steps + self.recipe.polish

    def advance(self) -> float:
        """Takes one step and returns its loss."""
        began = time.process_time()
        # Each step has a generator of its own, so a resumed run needs no position in the data.
        rng = random.Random(f"{self.recipe.task}|{self.seed}|{self.step}")
        main = self.step - self.recipe.warm_up
        if main < 0:
            loss, rate = self._warm_up_loss(rng), min(1.0, (self.step + 1) / 20)
        else:
            if main in (0, self.recipe.steps):
                self.optimizers = self._optimizers()
            polish = main >= self.recipe.steps
            loss = self._polish_loss(rng) if polish else self._row_loss(rng)
            rate = _rate(main, self.recipe)
        self._descend(loss, rate * LEARNING_RATE)
        self.step += 1
        self.cpu_seconds += time.process_time() - began
        return loss.item()

    def probe(self, rows: int = 32) -> dict[str, float]:
        """Measures the share of exactly predicted validation blocks, by kind."""
        rng = random.Random(f"probe|{self.seed}")
        corpus = Corpus(rng, task=self.recipe.task, split="validation")
        self.network.eval()
        with torch.no_grad():
            found = network.exact_blocks(self.network, self.packer.sample(rng, corpus, rows))
        self.network.train()
        kinds = sorted({kind for kind, _ in found})
        hits = {kind: [hit for name, hit in found if name == kind] for kind in kinds}
        return {kind: sum(values) / len(values) for kind, values in hits.items()}

    def save(self, path: Path) -> None:
        """Writes a checkpoint from which `restore` goes on."""
        state = {
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "network": self.network.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": torch.get_rng_state(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def restore(self, path: Path) -> None:
        """Goes back to a checkpoint of the same recipe and seed.

        Raises:
            ValueError: If the checkpoint belongs to another recipe or seed.
        """
        state = torch.load(path, weights_only=True)
        if (state["recipe"], state["seed"]) != (asdict(self.recipe), self.seed):
            raise ValueError(f"the checkpoint {str(path)!r} is of another recipe or seed")
        self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
        self.network.load_state_dict(state["network"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["generator"])

    def _warm_up_loss(self, rng: random.Random) -> Tensor:
        scenes = [draw(scene_seed(rng, "train")) for _ in range(self.recipe.warm_up_pictures)]
        return self.heads.loss(network.see(self.network, pictures(scenes, rng)), scenes)

    def _row_loss(self, rng: random.Random) -> Tensor:
        later = self.recipe.later is not None and self.step >= self.recipe.later
        corpus = Corpus(rng, task=self.recipe.task, mix=LATER if later else FIRST)
        batch = self.packer.sample(rng, corpus, self.recipe.rows)
        features = network.see(self.network, batch.pixels)
        attributes = self.heads.loss(features, batch.scenes)
        return network.answer_loss(self.network, batch, features) + ATTRIBUTE_SHARE * attributes

    def _polish_loss(self, rng: random.Random) -> Tensor:
        corpus = Corpus(rng, task=self.recipe.task, mix=POLISH)
        batch = self.packer.sample(rng, corpus, self.recipe.rows // 2)
        return network.answer_loss(self.network, batch, network.see(self.network, batch.pixels))

    def _descend(self, loss: Tensor, rate: float) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [*self.network.parameters(), *self.heads.parameters()]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Makes Muon for the matrices inside the layers, and AdamW for everything else."""
        named = list(self.network.named_parameters())
        inner = [value for name, value in named if value.ndim == 2 and "layers" in name]
        taken = {id(parameter) for parameter in inner}
        outer = [value for _, value in named if id(value) not in taken]
        muon = torch.optim.Muon(
            inner,
            lr=LEARNING_RATE,
            weight_decay=0.05,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        )
        adam = torch.optim.AdamW(
            [*outer, *self.heads.parameters()], lr=LEARNING_RATE, betas=BETAS, weight_decay=0.01
        )
        return [muon, adam]


def _rate(step: int, recipe: Recipe) -> float:
    """Warms the learning rate up, holds it, and lets it fall towards the end; then polishes."""
    if step >= recipe.steps:
        return POLISH_RATE * (1 - (step - recipe.steps) / recipe.polish)
    fall = recipe.fall * (1 - step / recipe.steps)
    return min(1.0, (step + 1) / 60) * max(0.03, min(1.0, fall))


def run(training: Training, checkpoint: Path) -> None:
    """Trains to the end, with a progress bar and a checkpoint every few steps."""
    recent: deque[float] = deque(maxlen=30)
    with tqdm(total=training.total, initial=training.step, desc=training.recipe.folder) as bar:
        while training.step < training.total:
            recent.append(training.advance())
            mean = sum(recent) / len(recent)
            bar.set_postfix(loss=f"{mean:.3f}", refresh=False)
            bar.update()
            if training.step % CHECKPOINT_EVERY == 0 or training.step == training.total:
                training.save(checkpoint)
            if training.step > training.recipe.warm_up and training.step % PROBE_EVERY == 0:
                exact = ", ".join(f"{kind} {hit:.0%}" for kind, hit in training.probe().items())
                bar.write(f"step {training.step}: loss {mean:.3f}, exact blocks: {exact}")


def export(training: Training, folder: Path) -> None:
    """Writes the weights, the processor and the generation defaults."""
    model = training.network.eval()
    model.generation_config.update(do_sample=False, max_new_tokens=96)
    with staged(folder) as stage:
        model.save_pretrained(stage)
        build_processor(training.tokenizer).save_pretrained(stage)
