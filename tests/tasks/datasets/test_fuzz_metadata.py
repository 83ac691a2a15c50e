"""Labelled images whose files say something of their numbers: no value changes in silence.

SEAMO_FAST_FUZZ=20000 pytest tests/tasks/datasets/test_fuzz_metadata.py     a longer run
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from seamo_fast.data.packing.sources.plain import image_file as images
from seamo_fast.errors import DataError
from seamo_fast.modalities import Band, Modality
from tests.data.packing.fuzzing_metadata import mutate

CASES = int(os.environ.get("SEAMO_FAST_FUZZ", 300))
DTYPES = ("uint16", "int16", "uint8", "float32")


def make(rng: np.random.Generator, path: Path) -> Modality:
    """Writes an image of one to three bands; returns what its dataset says of it."""
    bands, dtype = int(rng.integers(1, 4)), str(rng.choice(DTYPES))
    values = rng.integers(1, 200, (bands, 24, 20)).astype(dtype)
    tifffile.imwrite(
        path,
        values[0] if bands == 1 else np.moveaxis(values, 0, -1),
        photometric="minisblack",
        planarconfig=None if bands == 1 else "contig",
        metadata=None,
    )
    names = ("B2", "B3", "B4")[:bands]
    modality = Modality("image", tuple(Band(name, 10) for name in names), "dn", scale=10000)
    return replace(modality, nodata=(None, 0.0)[int(rng.integers(2))])


def as_stored(path: Path) -> np.ndarray:
    """The first page [C, H, W], by another library and as if its tags said nothing."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        values = page.asarray()
        if page.axes == "YXS":
            values = np.moveaxis(values, -1, 0)
    return values if values.ndim == 3 else values[None]


def check(
    path: Path, modality: Modality, how: str, must: bool | None, log: pytest.LogCaptureFixture
) -> None:
    try:
        shape = (len(modality.bands), None, None)
        image = images.read_image(path, DTYPES, shape, modality)
    except DataError as error:
        if path.name not in str(error):
            raise AssertionError(f"{error} does not name {path}") from error
        return
    stored = as_stored(path)
    said = [record for record in log.records if record.name.startswith("seamo_fast")]
    changed = ~((image == stored) | (np.isnan(image) & np.isnan(stored)))
    if changed.any():
        assert said, f"{how}: {changed.sum()} values were changed without a word"
        allowed = np.isnan(image) if modality.nodata is None else image == modality.nodata
        assert allowed[changed].all(), f"{how}: values became other values"
    elif must and how == "nodata":
        assert said, "pixels that are not measured count as measured, without a word"
    assert not (must and how == "number"), "a turned or inverted image was read as it is"


def test_no_value_changes_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "s2" / "image_1.tif"
    path.parent.mkdir()
    ways = set()
    for case in range(CASES):
        rng = np.random.default_rng([13, case])
        modality = make(rng, path)
        how, must = mutate(rng, tmp_path, path)
        ways.add(how)
        images.warn_once.cache_clear()
        caplog.clear()
        try:
            check(path, modality, how, must, caplog)
        except AssertionError as error:
            raise AssertionError(f"case {case}: {error}") from error
    assert ways == {"nodata", "item", "number", "page", "form"}
