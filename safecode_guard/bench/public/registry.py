"""The public benchmarks by name, and their items checked as a whole before any is asked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Final

from safecode_guard.bench.public.items import Benchmark, PublicItem
from safecode_guard.bench.public.sets.drawn import DRAWN
from safecode_guard.bench.public.sets.figstep import FIGSTEP
from safecode_guard.bench.public.sets.hades import HADES
from safecode_guard.bench.public.sets.mm_safetybench import MM_SAFETYBENCH
from safecode_guard.bench.public.sets.mossbench import MOSSBENCH
from safecode_guard.bench.public.sets.mssbench import MSSBENCH
from safecode_guard.bench.public.sets.msts import MSTS
from safecode_guard.bench.public.sets.mtmcs import MTMCS
from safecode_guard.bench.public.sets.xstest import XSTEST
from safecode_guard.errors import DataError, GuardError, likely, listed

BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    each.name: each
    for each in (MSSBENCH, MOSSBENCH, MTMCS, MM_SAFETYBENCH, FIGSTEP, HADES, MSTS, XSTEST, DRAWN)
}


def benchmark_named(name: str) -> Benchmark:
    """Return a benchmark.

    Raises:
        GuardError: If there is none of that name.
    """
    if name not in BENCHMARKS:
        raise GuardError(f"There is no benchmark {name!r}.", hint=likely(name, BENCHMARKS))
    return BENCHMARKS[name]


@dataclass(frozen=True)
class DataSet:
    """A benchmark's items in a directory, looked through once and read anew whenever asked."""

    benchmark: Benchmark
    folder: Path
    count: int
    """Items that are asked."""
    digest: str
    """Of what is asked: ids, texts, and where the pictures are; not of the pictures themselves."""
    parts: tuple[str, ...]
    doubled: int
    """Items whose texts and pictures were met before, under another id: they are asked all the
    same, since the published figures count them."""
    left_out: int
    """Items that lack a picture."""
    turns: int
    """Of the longest conversation."""
    most: int | None = None
    only: frozenset[str] = frozenset()

    def items(self) -> Iterator[PublicItem]:
        """Yield the items, in the order of the files."""
        return _chosen(self.benchmark, self.folder, self.most, self.only)


def open_data(
    benchmark: Benchmark,
    folder: Path,
    *,
    most: int | None = None,
    parts: Sequence[str] = (),
    skip_missing: bool = False,
) -> DataSet:
    """Look a data set through, and refuse it if anything is wrong with it.

    Args:
        benchmark: Which one.
        folder: Where it lies.
        most: At most so many units of each part, in the order of the files.
        parts: Only these; empty: all.
        skip_missing: Leave out items that lack a picture, and count them.

    Raises:
        DataError: If a file, a field or a picture is missing or wrong, or an id comes twice. Its
            hint says where the data set is to be had.
    """
    try:
        return _looked_through(benchmark, folder, most, frozenset(parts), skip_missing)
    except DataError as error:
        if error.hint is not None:
            raise
        raise DataError(
            error.message,
            hint=benchmark.hint,
            file=error.file,
            entry=error.entry,
            field=error.field,
        ) from error


def _looked_through(
    benchmark: Benchmark, folder: Path, most: int | None, only: frozenset[str], skip: bool
) -> DataSet:
    if not folder.is_dir():
        raise DataError(f"There is no directory {str(folder)!r}.", file=str(folder))
    ids: set[bytes] = set()
    said: Counter[bytes] = Counter()
    parts: dict[str, None] = {}
    asked, turns, missing, lacking = sha256(), 0, 0, list[Path]()
    for item in _units(benchmark.read(folder), most, only):
        if (name := _short(item.id)) in ids:
            raise DataError(f"The id {item.id!r} comes twice.", file=str(folder), entry=item.id)
        ids.add(name)
        parts[item.part] = None
        if item.missing:
            missing += 1
            lacking += item.missing[: 3 - len(lacking)]
            continue
        content = repr(
            (item.turns, item.questions, [_where(picture, folder) for picture in item.pictures])
        )
        turns = max(turns, len(item.turns))
        said[_short(content)] += 1
        asked.update(repr((item.id, item.side, content)).encode("utf-8", "surrogatepass"))
    if missing and not skip:
        raise DataError(
            f"{missing} of {len(ids)} items lack a picture, such as {str(lacking[0])!r}.",
            file=str(lacking[0]),
        )
    if not ids or len(ids) == missing:
        named = f" of the parts {listed(only)}" if only else ""
        raise DataError(f"There is nothing to ask{named} in {str(folder)!r}.", file=str(folder))
    return DataSet(
        benchmark,
        folder,
        len(ids) - missing,
        asked.hexdigest(),
        tuple(parts),
        said.total() - len(said),
        missing,
        turns,
        most,
        only,
    )


def _chosen(
    benchmark: Benchmark, folder: Path, most: int | None, only: frozenset[str]
) -> Iterator[PublicItem]:
    return (item for item in _units(benchmark.read(folder), most, only) if not item.missing)


def _units(
    items: Iterator[PublicItem], most: int | None, only: frozenset[str]
) -> Iterator[PublicItem]:
    """Yield the items of some parts, and of each part's first units."""
    seen: dict[str, set[bytes]] = {}
    for item in items:
        if only and item.part not in only:
            continue
        met = seen.setdefault(item.part, set())
        unit = _short(item.unit)
        if most is None or unit in met or len(met) < most:
            if most is not None:
                met.add(unit)
            yield item


def _where(picture: Path | bytes, folder: Path) -> str:
    if isinstance(picture, Path):
        return Path(os.path.relpath(picture, folder)).as_posix()
    return sha256(picture).hexdigest()


def _short(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
