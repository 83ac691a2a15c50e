"""Weights of Sentinel-2, or of it and Sentinel-1, on every dataset and on other sensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seamo_fast.errors import ConfigError
from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.model import SeaMo
from seamo_fast.model.inputs import UnknownBands
from seamo_fast.model.weights import Weights, model_metadata, read_weights
from seamo_fast.tasks.datasets.open import DATASETS, DatasetOptions
from seamo_fast.tasks.evaluation.rows import Target, pretrained_row
from seamo_fast.tasks.features.adapt import (
    band_record,
    match_modalities,
    pretrained_backbone,
    taken_bands,
)
from tests.tasks.datasets.test_open import WRITERS
from tests.tasks.evaluation.toys import SMALL, ready
from tests.tasks.features.test_extractors import items

S2, S1, RGB = get_modality("s2l2a"), get_modality("s1grd"), get_modality("rgb")
L1C = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12"
OUT = "left out"
# dataset: for each of its modalities the one of weights of Sentinel-2 and Sentinel-1, and its bands
MATCHED: dict[str, dict[str, tuple[str | None, str]]] = {
    "segmunich": {"segmunich": ("s2l2a", "B1 B2 B3 B4 B5 B6 B7 B8A B11 B12")},
    "eurosat": {"eurosat_ms": ("s2l2a", "B1 B2 B3 B4 B5 B6 B7 B8 B9 B10 B11 B12 B8A")},
    "so2sat": {
        "so2sat_s2": ("s2l2a", "B2 B3 B4 B5 B6 B7 B8 B8A B11 B12"),
        "so2sat_s1": (None, "-"),
    },
    "bigearthnet_v2": {"s2l2a": ("s2l2a", L1C.replace(" B10", "")), "s1grd": ("s1grd", "VV VH")},
    "dfc2020": {"s2l1c": ("s2l2a", L1C), "s1grd": ("s1grd", "VV VH")},
    "sen1floods11": {"s2l1c": ("s2l2a", L1C), "s1grd": ("s1grd", "VV VH")},
    "hls_burn_scars": {"hls": ("s2l2a", "B2 B3 B4 B8A B11 B12")},
    "oscd": {"s2l1c": ("s2l2a", L1C)},
    "terramesh": {
        "s2l2a": ("s2l2a", L1C.replace(" B10", "")),
        "s2l1c": (None, "-"),
        "s1rtc": ("s1grd", "VV VH"),
        "s1grd": (None, "-"),
    },
    "worldcereal": {
        "s2": ("s2l2a", "B2 B3 B4 B5 B6 B7 B8 B11 B12"),
        "s1": ("s1grd", "VV VH"),
    },
    "class_folder": {"rgb": ("s2l2a", "RED:B4 GREEN:B3 BLUE:B2")},
}


def weights_of(path: Path, *modalities: Modality) -> Weights:
    torch.manual_seed(0)
    model = SeaMo(SMALL, modalities)
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    return read_weights(path)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return weights_of(tmp_path_factory.mktemp("both") / "model.safetensors", S1, S2)


@pytest.fixture(scope="module")
def optical(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return weights_of(tmp_path_factory.mktemp("optical") / "model.safetensors", S2)


def expected_record(
    name: str, modalities: Sequence[Modality], unknown: UnknownBands, radar: bool
) -> dict[str, object]:
    record: dict[str, object] = {}
    for modality in modalities:
        known, text = MATCHED[name][modality.name]
        if known is None or (known == "s1grd" and not radar):
            bands = dict.fromkeys(modality.band_names, OUT)
            record[modality.name] = {"modality": None, "bands": bands}
            continue
        bands = {}
        for each in text.split():
            band, _, source = each.partition(":")
            bands[band] = source or band
        if "B10" in bands:
            bands["B10"] = OUT if unknown == "leave_out" else "zero"
        record[modality.name] = {"modality": known, "bands": bands}
    return record


@pytest.mark.parametrize("name", MATCHED)
def test_every_dataset_is_matched(
    name: str, both: Weights, optical: Weights, tmp_path: Path
) -> None:
    if name in ("so2sat", "worldcereal", "bigearthnet_v2"):
        pytest.importorskip("pyarrow" if name == "bigearthnet_v2" else "h5py")
    root = tmp_path / "data"
    if name != "eurosat":
        root.mkdir()
    WRITERS[name](root)
    modalities = DATASETS[name].open(root, DatasetOptions()).modalities
    rules: tuple[UnknownBands, ...] = ("leave_out", "nearest", "zero")
    for weights, radar in ((both, True), (optical, False)):
        for unknown in rules:
            if name == "class_folder" and unknown != "nearest":
                with pytest.raises(ConfigError, match="unknown_bands nearest takes those"):
                    match_modalities(weights, modalities, unknown)
                continue
            matches = match_modalities(weights, modalities, unknown)
            found = band_record(matches, modalities)
            assert found == expected_record(name, modalities, unknown, radar)
            measured = [ready(modality) for modality in modalities]
            backbone = pretrained_backbone(weights, matches, measured, "pooled")
            inputs = items(taken_bands(matches, measured))
            with torch.no_grad():
                assert backbone(inputs.images, inputs.dates, inputs.valid).isfinite().all()


def test_the_log_names_what_each_band_takes(
    both: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    thermal = Modality("thermal", (Band("TIR", 10, 10900),), "dn")
    toa, planet = get_modality("landsat89_toa"), get_modality("planetscope")
    for modality in (toa, planet):
        measured = [ready(modality), ready(thermal)]
        pretrained_backbone(both, match_modalities(both, measured, "nearest"), measured, "pooled")
    assert [record.getMessage() for record in caplog.records] == [
        f"{both.path}: landsat89_toa is taken as s2l2a: B1, B2, B3, B4, B5 from B8A, B6 from B11, "
        "B7 from B12, B8 from zero, B9 from zero",
        f"{both.path}: thermal is left out, no free modality of the weights has a band of it",
        f"{both.path}: planetscope is taken as s2l2a: COASTAL_BLUE from B1, BLUE from B2, GREEN_I "
        "from B3 / 3, GREEN from B3 / 3, YELLOW from B3 / 3, RED from B4, RED_EDGE from B5, NIR "
        "from B8A",
        f"{both.path}: thermal is left out, no free modality of the weights has a band of it",
    ]


def test_frozen_features_do_without_bands_that_start_from_zero(both: Weights) -> None:
    toa = ready(get_modality("landsat89_toa").on_one_grid(30))
    row = pretrained_row(both, Target([toa], "classes", pooling="mean"))
    assert row.channels == {"landsat89_toa": ("s2l2a", [0, 1, 2, 3, 4, 5, 6])}
    left = pretrained_row(both, Target([toa], "classes", unknown_bands="leave_out", pooling="mean"))
    assert left.channels == {"landsat89_toa": ("s2l2a", [0, 1, 2, 3])}
    inputs = items([toa])
    matches = match_modalities(both, [toa], "nearest")
    backbone = pretrained_backbone(both, matches, [toa], "pooled").eval()
    with torch.no_grad():
        whole = backbone({"s2l2a": inputs.images[toa.name]}, inputs.dates, inputs.valid)
    torch.testing.assert_close(row(inputs), whole, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(left(inputs), whole, rtol=1e-2)


def test_the_modality_from_which_most_bands_start_is_taken(tmp_path: Path) -> None:
    weights = weights_of(tmp_path / "model.safetensors", S2, ready(RGB), S1)
    planet, red = get_modality("planetscope"), get_modality("planetscope").subset(["RED"])
    for modality, known in ((planet, "s2l2a"), (red, "rgb"), (RGB, "rgb")):
        (match,) = match_modalities(weights, [modality], "nearest")
        assert match.known.name == known  # of equals the one that shares more names


@pytest.mark.parametrize("first", [0, 1])
def test_the_dataset_s_best_modality_comes_first_whatever_the_order(
    first: int, both: Weights
) -> None:
    pair = [get_modality("planetscope"), get_modality("s2l1c")]
    modalities = [pair[first], pair[1 - first]]
    (match,) = match_modalities(both, modalities, "nearest")
    assert match.name == "s2l1c"
