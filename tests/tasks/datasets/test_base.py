"""What all datasets share: items, parts, skipping, batches."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from seamo_fast.errors import DataError
from seamo_fast.modalities import MISSING_DATE
from seamo_fast.tasks.datasets import (
    BigEarthNet,
    ClassFolder,
    EuroSAT,
    SegMunich,
    SkippedTile,
    collate,
)
from tests.eurosat import make_eurosat
from tests.tasks.datasets.layouts import (
    PATCHES,
    values,
    write_bigearthnet,
    write_segmunich,
    write_tif,
)


@pytest.fixture
def dataset(tmp_path: Path) -> EuroSAT:
    return EuroSAT(make_eurosat(tmp_path, "eurosat_ms", images=4), on_bad="skip")


def test_bad_items_are_skipped_and_counted(dataset: EuroSAT) -> None:
    dataset.files[1].write_bytes(b"II*\0")
    item = dataset[1]
    assert isinstance(item, SkippedTile)
    assert (item.id, item.number) == ("Forest_2", 1)
    assert dataset.files[1].name in item.reason
    with pytest.raises(DataError, match=r"Forest_2.tif cannot be read"):
        dataset.read(1)
    with pytest.raises(DataError, match=r"Forest_2.tif cannot be read"):
        EuroSAT(dataset.root)[1]
    for workers in (0, 1):
        loader = DataLoader(dataset, batch_size=6, num_workers=workers, collate_fn=collate)
        batches = list(loader)
        assert batches[0].names == ["Forest_1", "Forest_3", "Forest_4", "River_1", "River_2"]
        assert [len(each.skipped) for each in batches] == [1, 0]
        assert batches[0].skipped == [item]
        assert batches[0].tiles.ids.tolist() == [0, 2, 3, 4, 5]
    with pytest.raises(DataError, match=r"none of 1 items can be read: Forest_2.tif"):
        collate([item])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_batches_have_the_form_that_models_take(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path, lists=False)
    first, (radar, _) = next(iter(PATCHES.items()))
    # without its metadata the first radar patch has no partner
    (tmp_path / "BigEarthNet-S1-v1.0" / radar / f"{radar}_labels_metadata.json").write_text("{}")
    dataset = BigEarthNet(tmp_path)
    items = [dataset.read(number) for number in (1, 0)]
    batch = collate(items)
    tiles = batch.tiles
    tiles.check()
    assert tiles.modalities == ("s2l2a", "s1grd")
    assert [tuple(grid.shape) for grid in tiles.bands["s2l2a"]] == [
        *((2, 1, 4, 120, 120), (2, 1, 6, 60, 60), (2, 1, 2, 20, 20)),
    ]
    assert tiles.valid.tolist() == [[[True, True]], [[True, False]]]
    assert not tiles.complete
    epoch = date(1970, 1, 1)
    assert tiles.dates.tolist() == [
        [[(date(2017, 10, 2) - epoch).days, (date(2017, 10, 3) - epoch).days]],
        [[(date(2017, 6, 13) - epoch).days, MISSING_DATE]],
    ]
    assert (batch.names[1], tiles.ids.tolist()) == (first, [1, 0])
    assert batch.labels is not None
    assert batch.labels.shape == (2, 19)
    assert batch.masks is None
    for place, item in enumerate(items):
        for name, grids in item.bands.items():
            for mine, all_of_them in zip(grids, tiles.bands[name], strict=True):
                assert torch.equal(all_of_them[place], mine)


def test_masks_are_stacked(tmp_path: Path) -> None:
    write_segmunich(tmp_path)
    dataset = SegMunich(tmp_path, "train")
    batch = collate([dataset[0], dataset[1]])
    mask = dataset.read(1).mask
    assert batch.masks is not None
    assert mask is not None
    assert torch.equal(batch.masks[1], mask)
    assert batch.labels is None
    assert batch.tiles.complete


def test_items_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    for side in (4, 5):
        write_tif(tmp_path / "a" / f"{side}.tif", values(side, (3, side, side), "uint8"))
    dataset = ClassFolder(tmp_path)
    with pytest.raises(DataError, match=r"rgb differ within a batch: .*\[1, 3, 4, 4\].*crop"):
        collate([dataset[0], dataset[1]])


def test_parts_keep_their_order_and_numbers(tmp_path: Path) -> None:
    dataset = EuroSAT(make_eurosat(tmp_path, "eurosat_rgb", images=5), split="test")
    assert [entry.split for entry in dataset.entries] == ["test"] * 3
    full = EuroSAT(tmp_path)
    assert list(dataset.files) == [full.files[number] for number in full.split().test]
    item = dataset.read(-1)
    assert (item.split, item.number) == ("test", 2)
    assert [dataset.read(number).label for number in range(3)] == [0, 1, 2]


def test_one_image_is_told_from_many(tmp_path: Path) -> None:
    write_bigearthnet(tmp_path)
    item = BigEarthNet(tmp_path).read(0)
    with pytest.raises(ValueError, match="is not one image but has grids"):
        _ = item.image
