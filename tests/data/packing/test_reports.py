"""What packing says of its source: kinds, what stops, and the dry audit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.check import check
from seamo_fast.data.packing.packer import Plan, pack_splits
from seamo_fast.data.packing.sources import Reading
from seamo_fast.data.shards import KINDS, Remark
from seamo_fast.errors import DataError
from seamo_fast.pack import main
from tests.conftest import REPOSITORY
from tests.data.packing.test_pack_kills import write_locations
from tests.data.packing.test_packer import Made, contents

DOCS = REPOSITORY / "docs" / "data.md"
NOTE = Remark("tile 2", "the file says -9999, the mapping 0", "override")


@dataclass
class Noted(Made):
    """Sample 2 is packed with a remark."""

    note: Remark = NOTE

    def read(self, item: str) -> Iterator[Reading]:
        for reading in super().read(item):
            if item == "2":
                reading.noted.append(self.note)
            yield reading


def test_kinds_are_in_the_report_and_in_the_manifest(tmp_path: Path) -> None:
    manifest = pack_splits(Noted(bad=(1,), broken=(3,)), Plan(tmp_path))[""]
    assert manifest.noted == (NOTE,)
    report = json.loads((tmp_path / "shard-00000" / "report.json").read_text())
    assert set(report) == {"items", "settings", "skipped", "noted", "statistics", "files"}
    assert report["noted"] == [NOTE._asdict()]
    assert [each["kind"] for each in report["skipped"]] == ["unreadable", "unusable", "unreadable"]
    assert {each.kind for each in (*manifest.skipped, *manifest.noted)} <= set(KINDS)


def test_a_report_without_kinds_is_read(tmp_path: Path) -> None:
    """As earlier versions wrote it."""
    first = pack_splits(Made(bad=(3,)), Plan(tmp_path))[""]
    path = tmp_path / "shard-00000" / "report.json"
    report = json.loads(path.read_text())
    report["skipped"] = [[each["what"], each["why"]] for each in report["skipped"]]
    path.write_text(json.dumps(report))
    (tmp_path / "manifest.json").unlink()
    again = pack_splits(Made(bad=(3,)), Plan(tmp_path))[""]
    assert again.skipped == tuple(each._replace(kind="") for each in first.skipped)


@pytest.mark.parametrize(
    "plan",
    [Plan(Path("out"), on_metadata="stop"), Plan(Path("out"), strict=True)],
    ids=["on_metadata", "strict"],
)
def test_what_stops_on_a_note(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^tile 2: the file says -9999, the mapping 0$"):
        pack_splits(Noted(), plan)


def test_other_notes_stop_strict_alone(tmp_path: Path) -> None:
    note = Remark("tile 2", "3 values are NaN or infinite", "nonfinite")
    assert pack_splits(Noted(note=note), Plan(tmp_path / "a", on_metadata="stop"))[""].noted
    with pytest.raises(DataError, match="NaN or infinite"):
        pack_splits(Noted(note=note), Plan(tmp_path / "b", strict=True))
    with pytest.raises(DataError, match="it is bad"):
        pack_splits(Made(bad=(1,)), Plan(tmp_path / "c", strict=True))


def test_strict_holds_for_shards_of_an_earlier_run(tmp_path: Path) -> None:
    pack_splits(Noted(), Plan(tmp_path))
    with pytest.raises(DataError, match="the file says"):
        pack_splits(Noted(), Plan(tmp_path, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_audit_finds_what_packing_reports(tmp_path: Path, workers: int) -> None:
    source = Noted(bad=(1, 30), broken=(3,), count=40)
    manifest = pack_splits(source, Plan(tmp_path))[""]
    found = check(source, workers=workers)
    assert (found.skipped, found.noted) == (manifest.skipped, manifest.noted)
    assert found.samples == len(ShardSet(tmp_path)) == 37


@dataclass
class Twice(Made):
    """Items 1 and 7 hold a sample of one name."""

    def read(self, item: str) -> Iterator[Reading]:
        for reading in super().read(item):
            reading.id = "1" if item == "7" else item
            yield reading


def test_two_samples_of_one_name_are_named(tmp_path: Path) -> None:
    where = "2 samples have this name: shard-00000 record 1, shard-00001 record 3"
    manifest = pack_splits(Twice(), Plan(tmp_path, shard_size=4))[""]
    assert manifest.noted == (Remark("1", where, "name"),)
    assert check(Twice()).noted == (Remark("1", "2 samples have this name: 1, 7", "name"),)
    with pytest.raises(DataError, match=f"^1: {where}$"):
        pack_splits(Twice(), Plan(tmp_path, shard_size=4, strict=True))
    assert pack_splits(Made(), Plan(tmp_path / "once", shard_size=4))[""].noted == ()


def test_the_audit_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_locations(tmp_path / "in", 2, dates=2)
    lost = next((tmp_path / "in").rglob("B3.tif"))
    lost.unlink()
    before = contents(tmp_path)
    assert main(["--check", str(tmp_path / "in")]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[0] == "2 samples of 2 items can be packed"
    assert output[1] == "skipped 1: 1 missing"
    assert "missing: B3" in output[2]
    assert contents(tmp_path) == before
    assert main([str(tmp_path / "in"), "--check", "--strict"]) == 2
    assert capsys.readouterr().err == "error: 1 remarks, and strict allows none\n"
    shutil.rmtree(lost.parent)
    assert main(["--check", str(tmp_path / "in"), "--strict", "--workers", "1"]) == 0


def test_the_command_stops_at_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_locations(tmp_path / "in", 2, dates=1)
    next((tmp_path / "in").rglob("B3.tif")).unlink()
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--strict", "true"]) == 2
    assert "missing: B3" in capsys.readouterr().err
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--on_metadata", "stop"]) == 0


def test_the_docs_have_every_kind() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (?:skipped|noted) \|", DOCS.read_text(), re.M)
    assert dict(rows) == KINDS


def test_values_are_untouched(tmp_path: Path) -> None:
    """An audit leaves what it reads as it is."""
    source = Made(count=3)
    assert check(source).samples == 3
    readings = [next(source.read(item)) for item in source.items()]
    np.testing.assert_array_equal([int(r.arrays["one"][0].item()) for r in readings], [0, 1, 2])
