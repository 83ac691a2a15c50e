"""So2Sat's HDF5 files against what h5py wrote."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import LabelledBatch, So2Sat, collate
from seamo_fast.tasks.datasets.so2sat import SO2SAT_S1, SO2SAT_S2
from tests.tasks.datasets.layouts import write_so2sat

h5py = pytest.importorskip("h5py", reason="HDF5 needs the [geo] extra")


def test_items_are_as_stored(tmp_path: Path) -> None:
    written = write_so2sat(tmp_path)
    assert [len(So2Sat(tmp_path, part)) for part in ("train", "val")] == [5, 3]
    assert len(So2Sat(tmp_path)) == 8
    dataset = So2Sat(tmp_path, "val")
    for number in range(3):
        item = dataset.read(number)
        for name, key in (("so2sat_s1", "sen1"), ("so2sat_s2", "sen2")):
            stored = written["validation"][key][number].transpose(2, 0, 1)
            np.testing.assert_array_equal(item.bands[name][0][0], stored)
            assert item.bands[name][0].dtype == torch.float64
        assert item.label == written["validation"]["label"][number].argmax()
        assert item.id == f"validation_{number}"
    assert (SO2SAT_S2.unit, SO2SAT_S2.scale, len(SO2SAT_S1.bands)) == ("reflectance", 1, 8)
    assert SO2SAT_S2.band_names == (
        *("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"),
    )
    assert list(So2Sat(tmp_path, modalities=["so2sat_s2"]).read(0).bands) == ["so2sat_s2"]


def test_worker_processes_read_the_same(tmp_path: Path) -> None:
    write_so2sat(tmp_path)
    dataset = So2Sat(tmp_path, "train")
    here = collate([dataset[number] for number in range(5)])
    copied = pickle.loads(pickle.dumps(dataset)).read(3)
    assert torch.equal(copied.bands["so2sat_s2"][0], here.tiles.bands["so2sat_s2"][0][3])
    loader = DataLoader(dataset, batch_size=5, num_workers=1, collate_fn=collate)
    (there,) = loader
    assert isinstance(there, LabelledBatch)
    assert torch.equal(there.tiles.bands["so2sat_s1"][0], here.tiles.bands["so2sat_s1"][0])
    assert here.labels is not None
    assert torch.equal(there.labels, here.labels)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no training.h5"):
        So2Sat(tmp_path)
    with pytest.raises(DataError, match=r"testing.h5 cannot be read"):
        So2Sat(tmp_path, "test")
    write_so2sat(tmp_path)
    with h5py.File(tmp_path / "validation.h5", "r+") as file:
        file["label"][1] = 0
    with pytest.raises(
        DataError, match=r"validation.h5: the label of validation_1 is not one-hot: \[[^\n]*\]$"
    ):
        So2Sat(tmp_path, "val").read(1)
    with h5py.File(tmp_path / "validation.h5", "w") as file:
        file["sen2"], file["sen1"] = np.zeros((3, 32, 32, 9)), np.zeros((3, 32, 32, 8))
        file["label"] = np.zeros((3, 17))
    with pytest.raises(DataError, match=r"sen2 is float64 \[3, 32, 32, 9\].*expected"):
        So2Sat(tmp_path, "val")
    with h5py.File(tmp_path / "validation.h5", "w") as file:
        file["sen1"] = np.zeros((3, 32, 32, 8))
    with pytest.raises(DataError, match="no readable 'sen2'"):
        So2Sat(tmp_path, "val")
