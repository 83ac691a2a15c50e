"""The DALI loader is the torch loader's twin, whatever it reads and however it is set."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from seamo_fast.data import ShardSet, ShardWriter, TileLoader
from seamo_fast.data.loading.dali import DaliLoader
from seamo_fast.data.loading.loader import Loader
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.tiles import TileBatch
from seamo_fast.training import batches, schedule
from seamo_fast.training.config import DataConfig, PretrainConfig, RunConfig

pytest.importorskip("nvidia.dali", reason="needs the [dali] extra")

# Three, one and two bands on three grids; and integers with a sign, which DALI does not decode.
GSDS = (10, 10, 10, 20, 60, 60)
OPTIC = Modality(
    "optic",
    tuple(Band(name, gsd) for name, gsd in zip("ABCDEF", GSDS, strict=True)),
    "dn",
    nodata=0,
)
SIGNED = Modality("signed", (Band("X", 10), Band("Y", 10)), "dn")
RADAR = get_modality("s1grd")
NAMES = ["s1grd", "optic", "signed"]
SEASONS = 3
DTYPES = {"optic": np.uint16, "signed": np.int16, "s1grd": np.float32}


def arrays_of(index: int) -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(index)
    made = {}
    for modality in (OPTIC, SIGNED, RADAR):
        shapes = [(SEASONS, len(g.bands), *[round(240 / g.gsd)] * 2) for g in modality.grids]
        shift = -5 if modality is SIGNED else 0
        made[modality.name] = [
            (rng.integers(0, 30000, shape) + shift).astype(DTYPES[modality.name])
            for shape in shapes
        ]
    made["s1grd"][0][0, 0, 0, :3] = np.nan, -np.inf, -0.25
    return made


@pytest.fixture(params=["npy", "tiff"])
def shards(request: pytest.FixtureRequest, tmp_path: Path) -> ShardSet:
    """Seven samples in shards of three; every second one lacks a season of "optic"."""
    return write(tmp_path / "shards", request.param)


def write(path: Path, encoding: Any) -> ShardSet:
    modalities = (OPTIC, SIGNED, RADAR)
    writer = ShardWriter(path, modalities, SEASONS, source="made", shard_size=3, encoding=encoding)
    for index in range(7):
        days = [date(2020, 1 + 3 * t, 1 + index) for t in range(SEASONS)]
        valid = {m.name: [True] * SEASONS for m in modalities}
        valid["optic"][index % 3] = index % 2 == 0
        writer.add(f"place-{index}", arrays_of(index), {m.name: days for m in modalities}, valid)
    writer.finish()
    return ShardSet(path)


def take(loader: type[Loader], shards: ShardSet, count: int, **options: Any) -> list[TileBatch]:
    settings = {"batch_size": 2, "seed": 3, "modalities": NAMES, "seasons": 3, **options}
    return list(islice(loader(shards, **settings), count))


def assert_same(one: list[TileBatch], other: list[TileBatch]) -> None:
    for a, b in zip(one, other, strict=True):
        assert (a.modalities, a.complete) == (b.modalities, b.complete)
        for field in ("valid", "dates", "ids", "epochs"):
            assert torch.equal(getattr(a, field), getattr(b, field))
        for name in a.modalities:
            for x, y in zip(a.bands[name], b.bands[name], strict=True):
                assert (x.dtype, x.shape) == (y.dtype, y.shape)
                assert x.numpy().tobytes() == y.numpy().tobytes()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_batches_are_those_of_torch(shards: ShardSet, workers: int, prefetch: int) -> None:
    options = {"seasons": 2, "workers": workers, "prefetch": prefetch}
    expected = take(TileLoader, shards, 9, seasons=2)
    found = take(DaliLoader, shards, 9, **options)
    assert_same(found, expected)
    for batch in found:
        batch.check()
    assert_same(take(TileLoader, shards, 9, **options), expected)


def test_batches_hold_what_was_written(shards: ShardSet) -> None:
    for batch in take(DaliLoader, shards, 4):
        for row, index in enumerate(batch.ids.tolist()):
            for m, name in enumerate(NAMES):
                valid = batch.valid[row, :, m].numpy()
                for grid, made in zip(batch.bands[name], arrays_of(index)[name], strict=True):
                    assert grid[row].numpy()[valid].tobytes() == made[valid].tobytes()
                    assert not grid[row].numpy()[~valid].any()


@pytest.mark.parametrize("seasons", [1, 3])
def test_batches_are_copies(shards: ShardSet, seasons: int) -> None:
    # DALI hands a single tile through, unless it is told to copy it.
    options = {"batch_size": 1, "seasons": seasons}
    found = take(DaliLoader, shards, 8, **options)
    assert_same(found, take(TileLoader, shards, 8, **options))
    for batch in found:
        batch.bands["optic"][0].fill_(7)
    assert_same(take(DaliLoader, shards, 8, **options), take(TileLoader, shards, 8, **options))


@pytest.mark.parametrize("start", [1, 6, 1000])
def test_resumes_at_any_batch(shards: ShardSet, start: int) -> None:
    resumed = take(DaliLoader, shards, 3, start=start, workers=1)
    assert_same(resumed, take(TileLoader, shards, 3, start=start))
    if start < 7:
        assert_same(resumed, take(DaliLoader, shards, start + 3)[start:])


@pytest.mark.parametrize("loader", [TileLoader, DaliLoader])
@pytest.mark.parametrize("world", [1, 2])
def test_every_sample_once_an_epoch(shards: ShardSet, loader: type[Loader], world: int) -> None:
    parts = [take(loader, shards, 7, rank=rank, world=world, workers=1) for rank in range(world)]
    drawn = Counter(
        (epoch, index)
        for part in parts
        for batch in part
        for epoch, index in zip(batch.epochs.tolist(), batch.ids.tolist(), strict=True)
    )
    assert drawn == Counter((epoch, index) for epoch in range(2) for index in range(7))


def test_fraction_and_single_modality(shards: ShardSet) -> None:
    options = {"fraction": 0.5, "modalities": ["optic"], "seasons": 1, "batch_size": 4}
    assert_same(take(DaliLoader, shards, 3, **options), take(TileLoader, shards, 3, **options))


def test_can_be_iterated_again_and_leaves_random_state(shards: ShardSet) -> None:
    before = torch.get_rng_state()
    loader = DaliLoader(shards, batch_size=2, seed=3, modalities=NAMES, seasons=3, start=1)
    assert_same([next(iter(loader))], [next(iter(loader))])
    assert torch.equal(torch.get_rng_state(), before)


def optic_file(shards: ShardSet, record: int, season: int) -> Path:
    return shards.path / "shard-00001" / "optic_10m" / f"{record:05d}_{season}.tif"


@pytest.mark.parametrize("encoding", ["npy", "tiff"])
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_record(tmp_path: Path, encoding: str, workers: int) -> None:
    shards = write(tmp_path / "shards", encoding)
    npy = shards.path / "shard-00001" / "optic_10m.npy"
    file = npy if encoding == "npy" else optic_file(shards, 2, 1)
    data = bytearray(file.read_bytes())
    data[-9] ^= 255
    file.write_bytes(data)
    options = {"batch_size": 2, "seed": 3, "modalities": NAMES, "seasons": 3, "workers": workers}
    for loader in (DaliLoader, TileLoader):
        made = loader(ShardSet(shards.path), **options)
        assert_same(list(islice(made, 7)), take(TileLoader, ShardSet(shards.path), 7))
        (message,) = made.bad_records
        assert "shard-00001 record 2 (place-5) fails the checksum of optic_10m" in message
        with pytest.raises(DataError, match=r"record 2 \(place-5\) fails the checksum"):
            take(loader, ShardSet(shards.path), 4, on_bad="stop", workers=workers)


@pytest.mark.parametrize("length", [0, 7, 60, -5, -900])
def test_unchecked_damaged_tiff(tmp_path: Path, length: int) -> None:
    shards = write(tmp_path / "shards", "tiff")
    file = optic_file(shards, 1, 2)
    file.write_bytes(file.read_bytes()[:length])
    made = DaliLoader(shards, batch_size=2, seed=3, modalities=NAMES, seasons=3, verify=False)
    batches = list(islice(made, 9))
    assert_same(batches, take(TileLoader, shards, 9, verify=False))
    (message,) = made.bad_records
    assert str(file) in message
    for batch in batches:
        for row in (batch.ids == 4).nonzero().flatten().tolist():
            assert not batch.valid[row].any()


class TestWhatDaliCannotRead:
    """Files that DALI refuses or misreads are seen by their header and read with tifffile."""

    @pytest.fixture
    def shards(self, tmp_path: Path) -> ShardSet:
        return write(tmp_path / "shards", "tiff")

    @staticmethod
    def rewrite(files: Iterable[Path], **options: Any) -> None:
        for file in files:
            values = tifffile.imread(file)
            settings = {"photometric": "minisblack", "metadata": None, **options}
            if options.get("planarconfig") == "separate":
                values = np.moveaxis(values, -1, 0)
            elif values.ndim == 3:
                settings["planarconfig"] = "contig"
            tifffile.imwrite(file, values, **settings)

    def test_int16(self, shards: ShardSet, caplog: pytest.LogCaptureFixture) -> None:
        made = DaliLoader(shards, batch_size=2, seed=3, modalities=NAMES, seasons=3)
        assert [name for name, why in made.reasons.items() if why] == ["signed_10m"]
        assert f"signed_10m of {shards.path} is int16: tifffile reads it" in caplog.text

    @pytest.mark.parametrize("array", ["optic_10m", "s1grd_10m", "optic_60m"])
    def test_planar(self, shards: ShardSet, array: str, caplog: pytest.LogCaptureFixture) -> None:
        expected = take(TileLoader, write(shards.path.parent / "sound", "tiff"), 7)
        self.rewrite(shards.path.glob(f"*/{array}/*.tif"), planarconfig="separate")
        options = {"verify": False, "workers": 1}
        assert_same(take(DaliLoader, shards, 7, **options), expected)
        assert_same(take(TileLoader, shards, 7, **options), expected)
        assert f"{array} of {shards.path} is planar: tifffile reads it" in caplog.text

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"planarconfig": "separate"}, "is planar"),
            ({"compression": "zstd"}, "has the compression 50000"),
            ({"bigtiff": True}, "is no little-endian classic TIFF"),
            ({"byteorder": ">"}, "is no little-endian classic TIFF"),
        ],
    )
    def test_odd_files_among_others(
        self,
        shards: ShardSet,
        options: dict[str, Any],
        reason: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        expected = take(TileLoader, write(shards.path.parent / "sound", "tiff"), 7)
        self.rewrite([optic_file(shards, 1, 0), optic_file(shards, 2, 2)], **options)
        assert_same(take(DaliLoader, shards, 7, verify=False), expected)
        assert caplog.text.count(f"{reason}: tifffile reads it and others like it") == 1

    def test_failure_without_damage_ends(
        self, shards: ShardSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("seamo_fast.data.loading.dali.why_not_dali", lambda *_: "")
        self.rewrite(shards.path.glob("*/s1grd_10m/*.tif"), planarconfig="separate")
        with pytest.raises(DataError, match=r"DALI cannot read .*use data\.loader torch"):
            take(DaliLoader, shards, 9, verify=False, modalities=["s1grd"])


def test_same_message_of_impossible_arguments(shards: ShardSet) -> None:
    with pytest.raises(ValueError, match="positive multiple of the 2 ranks, but got 3"):
        take(DaliLoader, shards, 0, batch_size=3, world=2)
    with pytest.raises(DataError, match=r"has no modality 's2l2a'"):
        take(DaliLoader, shards, 0, modalities=["s2l2a"])


def test_missing_dali_is_explained(shards: ShardSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"pip install 'seamo_fast\[dali\]'`, or use data.loader"):
        take(DaliLoader, shards, 1)


def test_the_setting_chooses(shards: ShardSet) -> None:
    stage = schedule.Stage(0, "all", tuple(NAMES), 3, True, 1.0, 1.0)
    for kind, loader in (("torch", TileLoader), ("dali", DaliLoader)):
        config = PretrainConfig(
            data=DataConfig(batch_size=2, loader=kind), run=RunConfig(device="cpu")
        )
        assert type(batches.make_loader(config, shards, stage)) is loader
