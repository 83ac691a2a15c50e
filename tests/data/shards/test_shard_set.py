"""The shard format: what is written is read to the bit, and damage is named."""

from __future__ import annotations

import json
import pickle
import resource
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seamo_fast.data import ShardSet, ShardWriter
from seamo_fast.data.shards import mapped_arrays
from seamo_fast.errors import DataError
from seamo_fast.modalities import MISSING_DATE, get_modality
from tests.conftest import Shut

Made = Callable[[int], tuple[Any, Any, Any]]


def flip_byte(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    where = folder / "manifest.json"
    manifest = json.loads(where.read_text())
    edit(manifest)
    where.write_text(json.dumps(manifest))


def test_samples_come_back_to_the_bit(shards: ShardSet, made: Made) -> None:
    assert len(shards) == 10
    assert shards.seasons == 3
    for index in range(10):
        arrays, dates, valid = made(index)
        sample = shards.read(index)
        for m, name in enumerate(("optic", "s1grd")):
            for stored, written in zip(sample.bands[name], arrays[name], strict=True):
                assert stored.dtype == written.dtype
                for t in range(3):
                    expected = written[t] if valid[name][t] else np.zeros_like(written[t])
                    assert stored[t].tobytes() == expected.tobytes()
            for t in range(3):
                day = dates[name][t] if valid[name][t] else None
                expected_day = MISSING_DATE if day is None else (day - date(1970, 1, 1)).days
                assert sample.dates[t, m] == expected_day
            assert sample.valid[:, m].tolist() == valid[name]


def test_arrays_are_plain_npy_files(shards: ShardSet, made: Made) -> None:
    values = np.load(shards.path / "shard-00001" / "optic_10m.npy", allow_pickle=False)
    assert values.shape == (4, 3, 2, 12, 12)
    np.testing.assert_array_equal(values[2], made(6)[0]["optic"][0])


def test_nan_payloads_and_negative_zero_survive(tmp_path: Path) -> None:
    words = np.array([0x7FC12345, 0x80000000, 0xFF800001, 0x3F800000], np.uint32)
    radar = words.view(np.float32).reshape(1, 1, 2, 2).repeat(2, axis=1)
    writer = ShardWriter(tmp_path / "out", [get_modality("s1grd")], 1)
    writer.add("a", {"s1grd": [radar]}, {"s1grd": [None]}, {"s1grd": [True]})
    writer.finish()
    assert ShardSet(tmp_path / "out").read(0).bands["s1grd"][0].tobytes() == radar.tobytes()


def test_read_selects_modalities_and_seasons_in_the_given_order(shards: ShardSet) -> None:
    whole = shards.read(3)
    part = shards.read(3, ["s1grd", "optic"], [2, 0])
    assert list(part.bands) == ["s1grd", "optic"]
    np.testing.assert_array_equal(part.bands["optic"][1], whole.bands["optic"][1][[2, 0]])
    np.testing.assert_array_equal(part.valid, whole.valid[[2, 0]][:, [1, 0]])
    np.testing.assert_array_equal(part.dates, whole.dates[[2, 0]][:, [1, 0]])


def test_only_the_chosen_modalities_must_be_complete(write_shards: Callable[..., Path]) -> None:
    shards = ShardSet(write_shards(5))  # of odd ones "optic" lacks a season
    assert shards.complete(["s1grd"])
    assert not shards.complete(["optic"])
    assert not shards.complete(["s1grd", "optic"])
    assert ShardSet(write_shards(1, name="one")).complete(["s1grd", "optic"])
    damaged = write_shards(5, name="damaged")
    (damaged / "shard-00001" / "records.json").write_text("[]")
    assert not ShardSet(damaged).complete(["s1grd"])


def test_absent_modality_is_named(shards: ShardSet) -> None:
    with pytest.raises(DataError, match=r"has no modality 's2l2a'; it holds optic, s1grd"):
        shards.read(0, ["s2l2a"])
    with pytest.raises(IndexError, match="sample 10 of 10"):
        shards.read(10)


def test_statistics_are_those_of_the_valid_pixels(shards: ShardSet, made: Made) -> None:
    optical = shards.select(["optic"])[0]
    for channel, (grid, position) in enumerate([(0, 0), (1, 0), (0, 1)]):
        pixels = np.concatenate(
            [
                made(index)[0]["optic"][grid][np.array(made(index)[2]["optic"]), position].ravel()
                for index in range(10)
            ]
        ).astype(np.float64)
        assert optical.mean is not None
        assert optical.std is not None
        assert optical.mean[channel] == pytest.approx(pixels.mean(), rel=1e-12)
        assert optical.std[channel] == pytest.approx(pixels.std(), rel=1e-12)
    assert shards.select(["s1grd"])[0] == get_modality("s1grd")


def test_more_arrays_than_may_be_open(
    write_shards: Callable[..., Path], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped_arrays, "_MOST", 2)
    shards = ShardSet(write_shards())
    samples = [shards.read(index) for index in (0, 9, 4, 0)]
    for index, sample in zip((0, 9, 4, 0), samples, strict=True):
        valid = np.array(made(index)[2]["optic"])
        np.testing.assert_array_equal(
            sample.bands["optic"][0][valid], made(index)[0]["optic"][0][valid]
        )
    assert len(shards._mapped._open) == 2


@pytest.mark.parametrize(("limit", "most"), [(7, 3), (10**6, 5), (resource.RLIM_INFINITY, 5)])
def test_half_of_the_descriptors_are_left_to_others(
    write_shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(mapped_arrays, "_MOST", 5)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    shards = ShardSet(write_shards())
    for index in range(10):
        shards.read(index)
    assert len(shards._mapped._open) == most


def test_pickled_set_reads_without_carrying_arrays(shards: ShardSet) -> None:
    shards.read(0)
    data = pickle.dumps(shards)
    assert len(data) < 20_000
    np.testing.assert_array_equal(
        pickle.loads(data).read(1).bands["s1grd"][0], shards.read(1).bands["s1grd"][0]
    )


class TestDamage:
    """Every damage is found when the set is opened or the record read, and says where it is."""

    def test_flipped_byte(self, shards: ShardSet) -> None:
        file = shards.path / "shard-00001" / "s1grd_10m.npy"
        flip_byte(file, file.stat().st_size - 1)
        message = (
            r"shard-00001 record 3 \(place-7\) fails the checksum of s1grd_10m.npy: the file was "
            r"damaged after packing; delete this shard folder and run the same pack command again"
        )
        with pytest.raises(DataError, match=message):
            shards.read(7)
        shards.read(7, ["optic"])
        shards.read(6)
        assert len(shards.verify()) == 1
        assert "place-7" in shards.verify()[0]
        shards.read(7, verify=False)

    def test_flipped_byte_in_the_records(self, shards: ShardSet) -> None:
        flip_byte(shards.path / "shard-00000" / "records.json", 40)
        with pytest.raises(DataError, match=r"records.json fails its checksum: it was changed"):
            shards.read(0)

    def test_truncated_array(self, shards: ShardSet) -> None:
        file = shards.path / "shard-00002" / "optic_20m.npy"
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[: size // 2])
        message = rf"optic_20m.npy has {size // 2} bytes instead of {size}; delete .*shard-00002"
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_missing_array(self, shards: ShardSet) -> None:
        (shards.path / "shard-00000" / "optic_10m.npy").unlink()
        with pytest.raises(DataError, match=r"optic_10m.npy cannot be read \(No such file"):
            ShardSet(shards.path)

    def test_array_that_is_none(self, shards: ShardSet) -> None:
        (shards.path / "shard-00000" / "optic_10m.npy").write_bytes(b"something else" * 20)
        with pytest.raises(DataError, match=r"optic_10m.npy is not a .npy file"):
            ShardSet(shards.path)

    @pytest.mark.parametrize(
        ("dtype", "shape"), [("int16", (4, 3, 2, 12, 12)), ("uint16", (4, 3, 2, 12, 11))]
    )
    def test_array_of_another_kind(
        self, shards: ShardSet, dtype: str, shape: tuple[int, ...]
    ) -> None:
        np.save(shards.path / "shard-00000" / "optic_10m.npy", np.zeros(shape, dtype))
        message = r"but the manifest says uint16 \[4, 3, 2, 12, 12\]"
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_folder_that_is_no_shard_set(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"nowhere does not exist; make it with"):
            ShardSet(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"is not a shard folder: it has no manifest.json"):
            ShardSet(tmp_path)

    def test_set_that_was_not_finished(self, shards: ShardSet) -> None:
        (shards.path / "manifest.json").unlink()
        with pytest.raises(DataError, match=r"not packed to its end; run the same pack command"):
            ShardSet(shards.path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"manifest.json cannot be read"),
            ("[]", r"has shard format None, but this version reads format 1"),
            ('{"format": 2}', r"has shard format 2, but this version reads format 1"),
            ('{"format": 1}', r"is not a description of shards \(KeyError\('source'\)\)"),
        ],
    )
    def test_manifest_of_another_kind(self, shards: ShardSet, text: str, message: str) -> None:
        (shards.path / "manifest.json").write_text(text)
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dtype": "complex64"}, r"optic_20m has dtype complex64; expected one of uint8, "),
            ({"shape": [3, 1, 0, 6]}, r"a size of array optic_20m is 0"),
            ({"shape": [3, 1, 6]}, r"records of shape \[3, 1, 6\]; expected 3 seasons and 1 bands"),
            ({"shape": [2, 1, 6, 6]}, r"records of shape \[2, 1, 6, 6\]; expected 3 seasons and 1"),
            ({"shape": [3, 2, 6, 6]}, r"records of shape \[3, 2, 6, 6\]; expected 3 seasons and 1"),
        ],
    )
    def test_impossible_array(self, shards: ShardSet, change: dict[str, Any], message: str) -> None:
        edit_manifest(shards.path, lambda m: m["arrays"]["optic_20m"].update(change))
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_shard_name_outside_the_set(self, shards: ShardSet) -> None:
        edit_manifest(shards.path, lambda m: m["shards"][0].update(name="../elsewhere"))
        with pytest.raises(DataError, match=r"names a shard '../elsewhere'"):
            ShardSet(shards.path)


class TestUnits:
    """A modality of a registered name must have the registered bands and unit."""

    @pytest.mark.parametrize(
        ("unit", "message"),
        [
            ("m", r"'s1grd' has unit 'm'; expected one of dn, db, reflectance, uint8"),
            ("dn", r"'s1grd' has unit 'dn'; expected 'db'; convert the values"),
        ],
    )
    def test_wrong_unit(self, shards: ShardSet, unit: str, message: str) -> None:
        edit_manifest(shards.path, lambda m: m["modalities"][1].update(unit=unit))
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_wrong_order(self, shards: ShardSet) -> None:
        edit_manifest(shards.path, lambda m: m["modalities"][1]["bands"].reverse())
        message = r"'s1grd' expects the 2 bands VV, VH in this order, but got 2: VH, VV"
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_wrong_count(self, tmp_path: Path) -> None:
        modality = get_modality("s2l2a").subset(["B2", "B3", "B4"])
        with pytest.raises(ValueError, match=r"expects the 12 bands .* but got 3: B2, B3, B4"):
            ShardWriter(tmp_path / "out", [modality], 1)

    def test_b8a_in_the_place_of_b8(self, tmp_path: Path) -> None:
        names = list(get_modality("s2l2a").band_names)
        names[7:9] = ["B8A", "B8"]
        modality = get_modality("s2l2a").subset(names)
        with pytest.raises(ValueError, match=r"but got 12: .* B7, B8A, B8, B9"):
            ShardWriter(tmp_path / "out", [modality], 1)

    def test_array_without_a_band(self, shards: ShardSet) -> None:
        edit_manifest(shards.path, lambda m: m["arrays"]["s1grd_10m"].update(shape=[3, 1, 12, 12]))
        message = r"array s1grd_10m has records of shape \[3, 1, 12, 12\]; expected 3 seasons and 2"
        with pytest.raises(DataError, match=message):
            ShardSet(shards.path)

    def test_unknown_dtype(self, shards: ShardSet) -> None:
        edit_manifest(shards.path, lambda m: m["arrays"]["s1grd_10m"].update(dtype="O"))
        with pytest.raises(DataError, match=r"array s1grd_10m has dtype O; expected one of uint8"):
            ShardSet(shards.path)


@pytest.mark.parametrize("name", ["", "manifest.json", "shard-00000", "shard-00000/*.npy"])
def test_what_belongs_to_another_user_is_named(
    write_shards: Callable[..., Path], shut: Shut, name: str
) -> None:
    folder = write_shards()
    closed = next(folder.glob(name)) if name else folder

    def read() -> None:
        ShardSet(folder).read(0)

    message = rf"{closed}.* cannot be read .*Permission denied"
    with shut(closed), pytest.raises(DataError, match=message):
        read()
