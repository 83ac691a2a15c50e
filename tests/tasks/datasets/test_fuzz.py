"""Every reader on damaged files: a tile, or an error that names the file; never anything else.

SEAMO_FAST_FUZZ=20000 pytest tests/tasks/datasets/test_fuzz.py     a longer run
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import resource
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy as np
import pytest

from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import (
    DFC2020,
    OSCD,
    SEN12MS,
    BigEarthNet,
    BigEarthNetV2,
    ClassFolder,
    EuroSAT,
    HLSBurnScars,
    LabelledDataset,
    LabelledTile,
    MaskFolder,
    SegMunich,
    Sen1Floods11,
    So2Sat,
    TerraMesh,
    WorldCereal,
)
from tests.eurosat import make_eurosat
from tests.tasks.datasets import layouts
from tests.tasks.datasets.mutations import mutate

SHORT: Final = 550
SECONDS: Final = 2.0  # of processor time, for the largest dataset
MEGABYTES: Final = 700


def make_pictures(root: Path) -> None:
    for name in ("1", "2"):
        image = layouts.values(name, (24, 32, 3), "uint8")
        for part, data in (
            (f"a/{name}.png", imagecodecs.png_encode(image)),
            (f"b/{name}.jpg", imagecodecs.jpeg8_encode(image)),
        ):
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            (root / part).write_bytes(data)


def make_masks(root: Path) -> None:
    make_pictures(root)
    (root / "a").rename(root / "images")
    for name in ("1", "2"):
        layouts.write_tif(root / "masks" / f"{name}.tif", np.zeros((24, 32), np.uint8))
    (root / "train.txt").write_text("1\n2\n")


def make_sen12ms(root: Path) -> None:
    layouts.write_triplets(root, "ROIs1158_spring", "lc", ["7_p1"])
    (root / "train_list.txt").write_text("ROIs1158_spring_s2_7_p1.tif\n")


def make_dfc2020(root: Path) -> None:
    layouts.write_triplets(root, "ROIs0000_test", "dfc", ["0_p1"])


def make_oscd(root: Path) -> None:
    layouts.write_city(root, "paris", "train")
    layouts.write_city(root, "norcia", "test", (1, 2), 48)


def make_bigearthnet(root: Path) -> None:
    layouts.write_bigearthnet(root, lists=False)


def make_terramesh(root: Path) -> None:
    layouts.write_terramesh(root, ["1", "2"])


Maker = Callable[[Path], Any]
Opener = Callable[[Path], LabelledDataset[Any]]
DATASETS: Final[dict[str, tuple[Maker, Opener]]] = {
    "eurosat_rgb": (lambda root: make_eurosat(root, "eurosat_rgb", 1), EuroSAT),
    "eurosat_ms": (lambda root: make_eurosat(root, "eurosat_ms", 1), EuroSAT),
    "bigearthnet": (layouts.write_bigearthnet, lambda root: BigEarthNet(root, "train")),
    "bigearthnet_unlisted": (make_bigearthnet, BigEarthNet),
    "bigearthnet_v2": (layouts.write_bigearthnet_v2, lambda root: BigEarthNetV2(root, maps=True)),
    "segmunich": (layouts.write_segmunich, SegMunich),
    "sen12ms": (make_sen12ms, lambda root: SEN12MS(root, "train")),
    "dfc2020": (make_dfc2020, DFC2020),
    "oscd": (make_oscd, OSCD),
    "oscd_rect": (make_oscd, lambda root: OSCD(root, images="rect")),
    "sen1floods11": (layouts.write_sen1floods11, Sen1Floods11),
    "so2sat": (layouts.write_so2sat, So2Sat),
    "burn_scars": (layouts.write_burn_scars, HLSBurnScars),
    "terramesh": (make_terramesh, TerraMesh),
    "worldcereal": (layouts.write_worldcereal, lambda root: WorldCereal(root, "val")),
    "pictures": (make_pictures, ClassFolder),
    "masks": (make_masks, lambda root: MaskFolder(root, ["a", "b"])),
}


def names(message: str, path: Path) -> bool:
    """Whether an error names the file, or that which a damaged list leads to."""
    listed = path.suffix in (".txt", ".csv", ".json", ".parquet")
    return path.name in message or (listed and ("is missing" in message or "no item" in message))


def read_all(root: Path, opener: Opener, path: Path) -> None:
    """Opens a dataset and reads every item, checking what comes of it."""
    ids: tuple[str, ...] = ()
    try:
        dataset = opener(root)
        ids = tuple(entry.id for entry in dataset.entries)
        items = [dataset[number] for number in range(len(dataset))]
    except DataError as error:
        # what the pixels say, of one file or of many, is said of the item
        lost = error.kind in ("empty", "constant", "unmeasured")
        if not (names(str(error), path) or (lost and str(error).startswith(ids))):
            raise AssertionError(f"{error} does not name {path}") from error
        return
    for item in items:
        assert isinstance(item, LabelledTile)
        for modality in dataset.modalities:
            channels = sum(grid.shape[1] for grid in item.bands[modality.name])
            assert channels == len(modality.bands)


def attack(roots: dict[str, Path], cases: int, note: Path) -> None:
    """Damages a file, reads, and mends it, so many times."""
    logging.disable()
    warnings.simplefilter("ignore")
    files = {
        name: sorted(p for p in root.rglob("*") if p.is_file()) for name, root in roots.items()
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(cases):
        rng = np.random.default_rng([4, case])
        name = list(roots)[case % len(roots)]
        # one file of each kind counts as much as another
        kinds = sorted({path.suffix + path.parent.name for path in files[name]})
        kind = kinds[rng.integers(len(kinds))]
        of_kind = [path for path in files[name] if path.suffix + path.parent.name == kind]
        path = of_kind[rng.integers(len(of_kind))]
        note.write_text(f"case {case}: {path}")
        content = path.read_bytes()
        path.write_bytes(mutate(rng, content))
        start = time.process_time()
        try:
            read_all(roots[name], DATASETS[name][1], path)
        finally:
            path.write_bytes(content)
        seconds = time.process_time() - start
        assert seconds < SECONDS, f"took {seconds:.1f} s"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < MEGABYTES, f"took {grown:.0f} MB"


def run(roots: dict[str, Path], cases: int, note: Path) -> None:
    faulthandler.enable()
    try:
        attack(roots, cases, note)
    except BaseException:
        note.write_text(f"{note.read_text()}\n{traceback.format_exc()}")
        raise


def test_damaged_files(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    pytest.importorskip("pyarrow")
    roots = {}
    for name, (make, opener) in DATASETS.items():
        roots[name] = tmp_path / name
        roots[name].mkdir()
        make(roots[name])
        dataset = opener(roots[name])
        assert all(isinstance(dataset[number], LabelledTile) for number in range(len(dataset)))
    note = tmp_path / "note"
    cases = int(os.environ.get("SEAMO_FAST_FUZZ", SHORT))
    # a decoder that crashes takes only this process with it
    child = multiprocessing.get_context("fork").Process(target=run, args=(roots, cases, note))
    child.start()
    child.join(240 if cases == SHORT else None)
    hangs = child.is_alive()
    child.kill()
    child.join()
    assert not hangs, f"hangs in {note.read_text()}"
    assert child.exitcode == 0, f"ended with {child.exitcode} in {note.read_text()}"
