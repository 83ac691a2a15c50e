"""The adapter of TorchGeo's datasets, and this package's readers against TorchGeo's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from seamo_fast.tasks.datasets import (
    IGNORE,
    OSCD,
    SEN12MS,
    BigEarthNet,
    BigEarthNetV2,
    EuroSAT,
    So2Sat,
    TorchGeoDataset,
    collate,
)
from tests.eurosat import CLASSES, make_eurosat
from tests.tasks.datasets.layouts import (
    write_bigearthnet,
    write_bigearthnet_v2,
    write_city,
    write_so2sat,
    write_triplets,
)

TWO = Modality("two", (Band("A", 10), Band("B", 10)), "dn")
ONE = Modality("one", (Band("C", 10),), "db")
GRIDS = Modality("grids", (Band("A", 10), Band("B", 20)), "dn")


class Made(torch.utils.data.Dataset[dict[str, Any]]):
    """Items as TorchGeo gives them."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {key: value + index for key, value in self.fields.items()}


class Broken(Made):
    def __getitem__(self, index: int) -> dict[str, Any]:
        raise OSError("a.tif is damaged")


def test_items_are_taken_over() -> None:
    image, other = torch.rand(2, 5, 6), torch.rand(3, 1, 5, 6)
    made = Made(image=image, label=torch.tensor(3))
    dataset = TorchGeoDataset(made, {"image": TWO}, list("abcde"), "train")
    item = dataset.read(1)
    assert torch.equal(item.image, image + 1)
    assert (item.label, item.split, item.id) == (4, "train", "Made_1")
    assert item.dates == {"two": [None]}
    made = Made(image_s1=other, image_s2=other, mask=torch.tensor([[[0, 254]]]))
    second = Modality("other", ONE.bands, "dn")
    dataset = TorchGeoDataset(made, {"image_s1": ONE, "image_s2": second}, ["a"], ignore=255)
    item = dataset.read(1)
    assert torch.equal(item.bands["one"][0], other + 1)
    assert item.mask is not None
    assert item.mask.tolist() == [[1, IGNORE]]
    batch = collate([dataset[0], dataset[1]])
    batch.tiles.check()
    assert batch.tiles.seasons == 3
    made = Made(image=image, label=torch.tensor([0, 1]))
    label = TorchGeoDataset(made, {"image": TWO}, ["a", "b"]).read(0).label
    assert label is not None
    assert label.tolist() == [0, 1]


def test_other_items_are_refused() -> None:
    image = torch.rand(2, 5, 6)
    with pytest.raises(DataError, match=r"Made_0: 'image' has shape \[2, 5, 6\]; expected \[1, H"):
        TorchGeoDataset(Made(image=image), {"image": ONE}, []).read(0)
    with pytest.raises(DataError, match="Made_0 has no 'image_s1'; it has image"):
        TorchGeoDataset(Made(image=image), {"image_s1": ONE}, []).read(0)
    with pytest.raises(DataError, match=r"no class number or flags"):
        TorchGeoDataset(Made(image=image, label=torch.tensor(0.5)), {"image": TWO}, []).read(0)
    with pytest.raises(DataError, match=r"has a mask \[2, 5, 6\]"):
        TorchGeoDataset(Made(image=image, mask=image), {"image": TWO}, []).read(0)
    with pytest.raises(DataError, match=r"Broken_0 cannot be read \(OSError: a.tif is damaged"):
        TorchGeoDataset(Broken(), {"image": TWO}, []).read(0)
    with pytest.raises(ValueError, match="on_one_grid"):
        TorchGeoDataset(Made(image=image), {"image": GRIDS}, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": torch.full((5, 6), 0.9)}, "mask with values that are no class numbers"),
        ({"mask": torch.full((5, 6), torch.nan)}, "mask with values that are no class numbers"),
        ({"label": torch.tensor(torch.nan)}, "no class number or flags"),
        ({"label": "a"}, "'label' is no array"),
    ],
)
def test_values_that_are_no_classes(fields: dict[str, Any], message: str) -> None:
    class Fixed(Made):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.fields

    made = Fixed(image=torch.rand(2, 5, 6).bfloat16(), **fields)
    with pytest.raises(DataError, match=message):
        TorchGeoDataset(made, {"image": TWO}, ["a"]).read(0)
    del made.fields[next(iter(fields))]
    assert TorchGeoDataset(made, {"image": TWO}, ["a"], task="mask").read(0).mask is None


def test_items_that_are_no_dictionaries_and_modalities_that_come_twice() -> None:
    class Pairs(Made):
        def __getitem__(self, index: int) -> Any:
            return torch.rand(2, 5, 6), 0

    with pytest.raises(DataError, match="Pairs_0 is a tuple; expected a dictionary"):
        TorchGeoDataset(Pairs(), {"image": TWO}, ["a"]).read(0)
    with pytest.raises(ValueError, match="image1, image2 must hold different modalities"):
        TorchGeoDataset(Made(), {"image1": TWO, "image2": TWO}, ["a"])


def test_modalities_of_different_seasons_cannot_be_collated() -> None:
    made = Made(image=torch.rand(2, 5, 6), other=torch.rand(3, 1, 5, 6))
    dataset = TorchGeoDataset(made, {"image": TWO, "other": ONE}, ["a"])
    with pytest.raises(DataError, match=r"differ in their dates: \{'two': 1, 'one': 3\}"):
        collate([dataset[0], dataset[1]])


@pytest.fixture
def theirs() -> Any:
    """TorchGeo's datasets, where they are installed."""
    return pytest.importorskip("torchgeo.datasets", reason="TorchGeo is not installed")


def test_eurosat_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    root = tmp_path / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    make_eurosat(root, "eurosat_ms", images=3)
    for part, number in (("train", 3), ("val", 1), ("test", 2)):
        lines = "".join(f"{name}_{number}.jpg\n" for name in CLASSES)
        (tmp_path / f"eurosat-{part}.txt").write_text(lines)
    other = theirs.EuroSAT(tmp_path, "train")
    mine = EuroSAT(tmp_path, split="train", bands=other.bands)
    adapted = TorchGeoDataset(other, {"image": mine.modality}, mine.classes)
    assert len(mine) == len(adapted) == 3
    for number in range(3):
        item, same = mine.read(number), adapted.read(number)
        assert torch.equal(item.image.float(), same.image)
        assert item.label == same.label


def test_bigearthnet_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    write_bigearthnet(tmp_path)
    (tmp_path / "bigearthnet-val.csv").write_text("")
    for part in ("train", "test"):
        for item, classes in (
            (BigEarthNet(tmp_path, part, 19).read(0), 19),
            (BigEarthNet(tmp_path, part, 43).read(0), 43),
        ):
            other = theirs.BigEarthNet(tmp_path, part, num_classes=classes)[0]
            assert item.label is not None
            assert torch.equal(item.label, other["label"])
            # TorchGeo resamples to 10 m and rounds decibels to integers
            radar, fine = item.bands["s1grd"][0][0], item.bands["s2l2a"][0][0]
            assert torch.equal(radar[[1, 0]].round(), other["image"][:2])
            assert torch.equal(fine.float(), other["image"][[3, 4, 5, 9]])


def test_bigearthnet_v2_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_bigearthnet_v2(tmp_path)
    for part in ("train", "val"):
        other = theirs.BigEarthNetV2(tmp_path, part)[0]
        item = BigEarthNetV2(tmp_path, part, maps=True).read(0)
        assert item.label is not None
        assert item.mask is not None
        assert torch.equal(item.label, other["label"])
        fine, radar = item.bands["s2l2a"][0][0], item.bands["s1grd"][0][0]
        assert torch.equal(fine.float(), other["image_s2"][[1, 2, 3, 7]])
        assert torch.equal(radar[[1, 0]].round(), other["image_s1"])
        known = item.mask != IGNORE
        assert torch.equal(item.mask[known], other["mask"][0][known])


def test_oscd_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    write_city(tmp_path, "paris", "train")
    other = theirs.OSCD(tmp_path, "train")[0]
    item = OSCD(tmp_path, "train", images="rect").read(0)
    assert torch.equal(item.bands["s2l1c"][0].float(), other["image"])
    assert item.mask is not None
    assert torch.equal(item.mask, other["mask"][0])


def test_sen12ms_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    for season in ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter"):
        (tmp_path / season).mkdir()
    write_triplets(tmp_path, "ROIs1158_spring", "lc", ["7_p30"])
    for part, patch in (("train", "p30"), ("test", "p31")):
        (tmp_path / f"{part}_list.txt").write_text(f"ROIs1158_spring_s2_7_{patch}.tif\n")
    other = theirs.SEN12MS(tmp_path, "train")[0]
    item = SEN12MS(tmp_path, "train").read(0)
    images = [item.bands[name][0][0].float() for name in ("s1grd", "s2l1c")]
    assert torch.equal(torch.cat(images), other["image"].float())
    assert item.mask is not None
    known = item.mask != IGNORE
    assert torch.equal(item.mask[known], other["mask"][known] - 1)


def test_so2sat_equals_torchgeo(theirs: Any, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    write_so2sat(tmp_path)
    other = theirs.So2Sat(tmp_path, split="validation")
    mine = So2Sat(tmp_path, "val")
    assert len(mine) == len(other)
    assert list(mine.classes) == list(other.classes)
    for number in range(len(mine)):
        item = mine.read(number)
        images = [item.bands[name][0][0].float() for name in ("so2sat_s1", "so2sat_s2")]
        np.testing.assert_array_equal(torch.cat(images), other[number]["image"])
        assert item.label == other[number]["label"]
