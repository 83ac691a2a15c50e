"""Sen1Floods11 and HLS Burn Scars against rasterio and against what was written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import IGNORE, HLSBurnScars, Sen1Floods11
from seamo_fast.tasks.datasets.hls_burn_scars import HLS
from tests.tasks.datasets.layouts import values, write_burn_scars, write_sen1floods11


def test_sen1floods11_equals_rasterio(data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    root = data_dir / "sen1floods11"
    if not root.is_dir():
        pytest.skip(f"real tiles: no folder {root}")
    dataset = Sen1Floods11(root)
    item = dataset.read(0)
    assert (item.id, item.split) == ("Spain_7370579", "")
    for name, folder, code in (("s2l1c", "S2", "S2Hand"), ("s1grd", "S1", "S1Hand")):
        with rasterio.open(root / folder / f"{item.id}_{code}.tif") as file:
            np.testing.assert_array_equal(item.bands[name][0][0], file.read())
            modality = next(each for each in dataset.modalities if each.name == name)
            modality.check_bands(file.descriptions)
            assert modality.nodata in (file.nodata, None)
    assert item.bands["s2l1c"][0].dtype == torch.int16
    with rasterio.open(root / "Labels" / f"{item.id}_LabelHand.tif") as file:
        codes = file.read(1)
    assert item.mask is not None
    for code, number in ((-1, IGNORE), (0, 0), (1, 1)):
        np.testing.assert_array_equal(item.mask == number, codes == code)


def test_sen1floods11_lists_and_dates(tmp_path: Path) -> None:
    write_sen1floods11(tmp_path)
    dataset = Sen1Floods11(tmp_path)
    assert [entry.split for entry in dataset.entries] == ["bolivia", "val"]
    bolivia = Sen1Floods11(tmp_path / "v1.1", "bolivia").read(0)
    assert bolivia.dates == {"s2l1c": [date(2018, 2, 16)], "s1grd": [date(2018, 2, 15)]}
    stored = values("Bolivia_1_S2Hand.tif", (13, 512, 512), "int16")
    np.testing.assert_array_equal(bolivia.bands["s2l1c"][0][0], stored)
    item = Sen1Floods11(tmp_path, "val").read(0)
    assert (item.id, item.dates["s1grd"]) == ("Sri-Lanka_22", [None])
    with pytest.raises(DataError, match="no items in 'train'"):
        Sen1Floods11(tmp_path, "train")
    path = tmp_path / "v1.1/Sen1Floods11_Metadata.geojson"
    path.write_text('{"features": [{"properties": {"location": "Bolivia"}}]}')
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        Sen1Floods11(tmp_path)
    path.unlink()
    lists = tmp_path / "v1.1/splits/flood_handlabeled/flood_valid_data.csv"
    lists.write_text("Sri-Lanka_22_S1Hand.tif\n")
    with pytest.raises(DataError, match=rf"{lists} must have 2 columns, but row 1"):
        Sen1Floods11(tmp_path)


def test_burn_scars(tmp_path: Path) -> None:
    write_burn_scars(tmp_path)
    assert HLSBurnScars(tmp_path).parts == ("train", "val")
    item = HLSBurnScars(tmp_path, "val").read(0)
    assert item.id == "subsetted_512x512_HLS.S30.T10SDH.2018245.v1.4"
    assert item.dates == {"hls": [date(2018, 9, 2)]}
    assert (HLS.unit, HLS.band_names[3]) == ("reflectance", "B8A")
    stored = values(item.id, (6, 512, 512), "float32") / 100
    np.testing.assert_array_equal(item.image, stored.astype(np.float32))
    codes = values(f"mask {item.id}", (512, 512), "int16") % 3 - 1
    np.testing.assert_array_equal(item.mask, codes)
    (tmp_path / "validation" / f"{item.id}.mask.tif").unlink()
    with pytest.raises(DataError, match=rf"{item.id}.mask.tif is missing"):
        HLSBurnScars(tmp_path, "val")[0]
    with pytest.raises(DataError, match="holds no images"):
        HLSBurnScars(tmp_path / "training")


@pytest.mark.parametrize("names", [("s2l1c", "s2l2a"), ()])
def test_sen1floods11_has_two_modalities(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_sen1floods11(tmp_path)
    with pytest.raises(ValueError, match="modalities must be some of s2l1c, s1grd, but got"):
        Sen1Floods11(tmp_path, modalities=names)


def test_mekong_has_the_dates_of_cambodia(tmp_path: Path) -> None:
    write_sen1floods11(tmp_path)
    assert Sen1Floods11(tmp_path).remarks == (
        f"{tmp_path}/v1.1/Sen1Floods11_Metadata.geojson has no dates of Sri-Lanka",
    )
    for path in tmp_path.rglob("Sri-Lanka_22_*"):
        path.rename(path.with_name(path.name.replace("Sri-Lanka", "Mekong")))
    for path in tmp_path.rglob("*.csv"):
        path.write_text(path.read_text().replace("Sri-Lanka", "Mekong"))
    path = tmp_path / "v1.1/Sen1Floods11_Metadata.geojson"
    path.write_text(path.read_text().replace("Bolivia", "Cambodia"))
    item = Sen1Floods11(tmp_path, "val").read(0)
    assert item.dates == {"s2l1c": [date(2018, 2, 16)], "s1grd": [date(2018, 2, 15)]}
