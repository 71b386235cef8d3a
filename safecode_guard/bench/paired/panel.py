"""The judges of a paired benchmark: the model itself, other models, and three that need none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from safecode_guard.bench.paired.items import Item
from safecode_guard.errors import GuardError, likely
from safecode_guard.judges.combine import CascadeJudge, EnsembleJudge
from safecode_guard.judges.label_logits import LabelLogitsJudge
from safecode_guard.judges.local import LocalJudge
from safecode_guard.judges.protocol import Judge
from safecode_guard.judges.ras import RasJudge
from safecode_guard.models.protocol import Engine
from safecode_guard.pipeline.factory import load_local
from safecode_guard.policy import LocalJudgeConfig
from safecode_guard.risk.prototypes import Prototypes
from safecode_guard.tiny.load import weights_path
from safecode_guard.turns.scene import Shown
from safecode_guard.verdict import Judgement

SAME: Final = "same"
RAS: Final = "ras"
EMBEDDED: Final = ("light", "nano")
SCRIPTED: Final = ("always_safe", "always_unsafe", "truth")
NO_JUDGE: Final = "none"
"""Of rows that no verdict changes."""
NAMES: Final = (SAME, *EMBEDDED, *SCRIPTED)
MEMBERS: Final = ("light", SAME)
COMPOSED: Final = ("cascade", "both")
"""``light``, and then ``same`` where it is not sure; and the mean of the two, always asked."""

_SHOWN: Final[Mapping[str, Shown]] = {"_each": "each", "_together": "together"}
"""Endings of a judge's name: ``same_each`` looks at each picture by itself, and no more."""


@dataclass(frozen=True)
class Panelist:
    """One judge under its name in the table."""

    name: str
    judge: Judge | None
    """None for the scripted ones."""
    identity: str
    """What its judgements depend on: weights' hash and prompt version."""
    folder: Path | None = None
    """Of the model of its own, if it has one."""
    members: tuple[str, ...] = ()
    """Names of the judges that it asks, in order."""
    shown: Shown = "both"
    """How it is shown several pictures of one turn; the worst finding counts."""

    def scripted(self, item: Item) -> Judgement:
        """Return what a scripted judge says of an item, with certainty."""
        unsafe = {
            "always_safe": False,
            "always_unsafe": True,
            "truth": item.truth == "unsafe",
        }[self.name]
        return Judgement(
            judge_id=self.name,
            prompt_version="scripted",
            p_unsafe=float(unsafe),
            parse_status="logits",
        )


def panel(
    names: str, model: Engine, *, folder: Path, prototypes: Path | None = None
) -> list[Panelist]:
    """Return judges by a comma-separated list of names or of model directories.

    Args:
        names: Of `NAMES` and `COMPOSED`, ``ras``, or directories. With the ending ``_each`` or
            ``_together`` a judge looks at several pictures of a turn in that way alone, and else in
            both.
        model: The guarded model, which judges under the name ``same``.
        folder: Its directory.
        prototypes: File that the judge ``ras`` goes by.

    Raises:
        GuardError: If a name is none of these, or ``ras`` has no prototypes.
    """
    return [_panelist(name, model, folder, prototypes) for name in dict.fromkeys(names.split(","))]


def require_judges(names: str, *, prototypes: Path | None = None) -> None:
    """Refuse a list of judges before a model is loaded for them.

    Raises:
        GuardError: If a name is none, or ``ras`` has no prototypes.
    """
    for name in names.split(","):
        plain = name
        for ending in _SHOWN:
            plain = plain.removesuffix(ending)
        if plain in (*NAMES, *COMPOSED) or (plain == RAS and prototypes is not None):
            continue
        if not any(each and (Path(each) / "config.json").is_file() for each in (name, plain)):
            raise _no_judge(name)


def _no_judge(name: str) -> GuardError:
    if name == RAS:
        return GuardError(
            "The judge 'ras' has no prototypes.",
            hint="Make them with `safecode-guard ras fit`, and name them by --prototypes.",
        )
    known = [*NAMES, *COMPOSED]
    every = f"Use one of {', '.join(known)}, a model's directory, or ras with --prototypes."
    return GuardError(f"There is no judge {name!r}.", hint=likely(name, known, every))


def _panelist(name: str, model: Engine, folder: Path, prototypes: Path | None = None) -> Panelist:
    if name in SCRIPTED:
        return Panelist(name, None, name)
    judge: Judge
    for ending, shown in _SHOWN.items():
        if name.endswith(ending) and not Path(name).is_dir():
            one = _panelist(name.removesuffix(ending), model, folder, prototypes)
            return replace(one, name=name, shown=shown)
    if name == SAME:
        judge = LabelLogitsJudge(model, id=f"same:{folder.name}")
        return Panelist(name, judge, f"{weights_sha256(folder)}:{judge.prompt_version}")
    if name == RAS and prototypes is not None:
        judge = RasJudge(model, Prototypes.read(prototypes))
        return Panelist(name, judge, f"{weights_sha256(folder)}:{judge.id}:{judge.prompt_version}")
    if name in COMPOSED:
        members = [_panelist(each, model, folder) for each in MEMBERS]
        judges = [member.judge for member in members if member.judge is not None]
        judge = CascadeJudge(judges) if name == "cascade" else EnsembleJudge(judges, rule="mean")
        identity = "+".join([judge.id, *(m.identity for m in members)])
        return Panelist(name, judge, identity, members=MEMBERS)
    own = weights_path(name) if name in EMBEDDED else Path(name)  # type: ignore[arg-type]
    if not own.is_dir():
        raise _no_judge(name)
    judge = LocalJudge(LocalJudgeConfig(model=str(own)), load=load_local)
    identity = f"{weights_sha256(own)}:{judge.prompt_version}"
    return Panelist(own.name, judge, identity, own)


def weights_sha256(folder: Path) -> str:
    """Return the sha256 over a model directory's weights, file by file in order of name.

    Raises:
        GuardError: If there are none.
    """
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        raise GuardError(f"There are no weights in {str(folder)!r}.", hint="Name a model's folder.")
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def weights_record(folders: Mapping[str, Path]) -> dict[str, dict[str, str | int]]:
    """Return hash and size of the weights in each folder, by name."""
    return {
        name: {
            "sha256": weights_sha256(folder),
            "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        }
        for name, folder in folders.items()
    }
