"""Splits: no place is in two of them, whatever the packing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import Plan, pack_splits
from seamo_fast.data.packing.sources import Reading
from seamo_fast.data.packing.sources.formats.ground import Ground
from seamo_fast.data.packing.splits import Splits
from seamo_fast.data.shards.manifest import ArraySpec, Remark
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Band, Modality


@dataclass
class Places:
    """Items of three samples each; samples of different items share places."""

    layout: ClassVar[str] = "made"
    looked_for: ClassVar[str] = "nothing"
    path: Path = Path("made")
    release: str = "made-1"
    modalities: tuple[Modality, ...] = (Modality("one", (Band("A", 10),), "dn"),)
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, ArraySpec] = field(
        default_factory=lambda: {"one_10m": ArraySpec("uint16", (1, 1, 1, 1))}
    )
    count: int = 20
    located: bool = True

    def items(self) -> list[str]:
        return [str(number) for number in range(self.count)]

    def files(self, item: str) -> list[Path]:
        return []

    def estimate(self) -> int:
        return 3 * self.count

    def read(self, item: str) -> Iterator[Reading]:
        for part in range(3):
            number = 3 * int(item) + part
            place = number % 25
            values = np.full((1, 1, 1, 1), number + 1, np.uint16)
            reading = Reading(str(number), {"one": [values]}, {"one": [None]}, {"one": [True]})
            reading.place = f"place-{place}"
            reading.position = (place - 12.5, place % 7) if self.located else None
            yield reading

    def scan(self, item: str) -> Iterator[Ground]:
        yield from (Ground(reading.place, None, ()) for reading in self.read(item))


def places(folder: Path) -> list[str]:
    records = [json.loads(file.read_bytes()) for file in sorted(folder.rglob("records.json"))]
    return [record["place"] for shard in records for record in shard]


@pytest.mark.parametrize("cell", [0, 2])
def test_no_place_is_in_two_splits(tmp_path: Path, cell: float) -> None:
    splits = Splits((0.5, 0.3, 0.2), cell)
    manifests = pack_splits(Places(), Plan(tmp_path, shard_size=4, splits=splits))
    assert list(manifests) == ["train", "val", "test"]
    found = {name: set(places(tmp_path / name)) for name in splits.names}
    assert not found["train"] & found["val"] | found["train"] & found["test"]
    assert not found["val"] & found["test"]
    assert set.union(*found.values()) == {f"place-{n}" for n in range(25)}
    assert sum(len(ShardSet(tmp_path / name)) for name in splits.names) == 60


def test_draw_depends_on_the_place_alone_and_keeps_the_shares() -> None:
    splits = Splits((0.9, 0.05, 0.05))
    drawn = [splits.choose(f"{n:07d}", None) for n in range(20000)]
    shares = Counter(drawn)
    assert shares["train"] / 20000 == pytest.approx(0.9, abs=0.01)
    assert shares["val"] / 20000 == pytest.approx(0.05, abs=0.005)
    again = [Splits((0.9, 0.05, 0.05)).choose(f"{n:07d}", (3, 4)) for n in range(100)]
    assert again == drawn[:100]


def test_cells_keep_neighbours_together() -> None:
    splits = Splits((0.5, 0.5), cell=2)
    inside = [(x, y) for x in np.arange(0, 2, 0.3) for y in np.arange(-2, 0, 0.3)]
    kinds = {splits.choose(f"{x}{y}", (x, y)) for x, y in inside}
    assert len(kinds) == 1
    assert {splits.choose("a", (x, y)) for x in range(0, 60, 2) for y in (0, 2)} == {"train", "val"}


def test_position_that_is_needed_but_unknown(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "out", splits=Splits((0.5, 0.5), cell=2))
    with pytest.raises(DataError, match=r"position of place-0 is unknown, so it has no cell"):
        pack_splits(Places(located=False), plan)
    assert not (tmp_path / "out" / "train").exists()
    assert pack_splits(Places(located=False), Plan(tmp_path / "out"))[""].shards


def test_all_splits_are_normalised_by_the_first(tmp_path: Path) -> None:
    manifests = pack_splits(Places(), Plan(tmp_path, splits=Splits((0.6, 0.4))))
    assert manifests["train"].modalities == manifests["val"].modalities
    train = ShardSet(tmp_path / "train")
    values = [train.read(n).bands["one"][0].item() for n in range(len(train))]
    (modality,) = manifests["val"].modalities
    assert modality.mean == (pytest.approx(np.mean(values)),)


def test_a_killed_split_is_continued(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "out", shard_size=4, splits=Splits((0.5, 0.5)))
    pack_splits(Places(), plan)
    before = {p: p.read_bytes() for p in sorted(plan.out.rglob("*")) if p.is_file()}
    for name in ("val/shard-00001", "train/shard-00002", "val/shard-00002"):
        for file in (plan.out / name).iterdir():
            file.unlink()
        (plan.out / name).rmdir()
    pack_splits(Places(), plan)
    assert {p: p.read_bytes() for p in sorted(plan.out.rglob("*")) if p.is_file()} == before
    with pytest.raises(DataError, match=r"holds the shard sets train, val; name one"):
        ShardSet(plan.out)


def test_split_without_a_sample_is_not_written(tmp_path: Path) -> None:
    plan = Plan(tmp_path, splits=Splits((0.999999, 0.000001)))
    assert list(pack_splits(Places(count=2), plan)) == ["train"]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_a_folder_that_a_killed_run_left_goes_if_its_split_is_empty(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    plan = Plan(tmp_path, splits=Splits((0.999999, 0.000001)))
    with plan.locked():
        assert list(pack_splits(Places(count=2), plan)) == ["train"]
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


class Broken(Places):
    """The first item cannot be read."""

    def read(self, item: str) -> Iterator[Reading]:
        if item == "0":
            raise DataError("it is broken")
        yield from super().read(item)


def test_what_an_empty_split_left_out_is_told(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "out", splits=Splits((0.000001, 0.999999)))
    manifests = pack_splits(Broken(count=2), plan)
    assert list(manifests) == ["val"]
    assert manifests["val"].skipped == (Remark("0", "it is broken", "unreadable"),)
    with pytest.raises(DataError, match=r"could be packed into .*: 0: it is broken"):
        pack_splits(Broken(count=1), Plan(tmp_path / "none", splits=plan.splits))


@pytest.mark.parametrize(
    "text",
    [
        "0.9",
        "0.9,0.2",
        "0.9,0.05,0.045",
        "0.9,0.05,0.051",
        "1,0",
        "0.5,0.2,0.2,0.1",
        "a,b",
        "nan,nan",
    ],
)
def test_impossible_shares(text: str) -> None:
    with pytest.raises(ConfigError, match=r"splits must be .* 0\.9,0\.05,0\.05, but got"):
        Splits.parse(text)


def test_shares_may_be_rounded() -> None:
    assert Splits.parse("0.3333333,0.3333333,0.3333333").names == ("train", "val", "test")


def test_impossible_cell() -> None:
    with pytest.raises(ConfigError, match=r"split_cell must be in \[0, 90\] degrees, but got -1"):
        Splits((0.5, 0.5), -1)
