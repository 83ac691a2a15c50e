"""Bands of other sensors: where their weights start, and what the embedding then computes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.model import ModelConfig
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.inputs import BandStart, UnknownBands, band_starts, shared_bands
from seamo_fast.model.weights import model_metadata

S2, S1 = get_modality("s2l2a"), get_modality("s1grd")
SMALL: Final = ModelConfig(16, 1, 1, image_size=32)
HH_VV: Final = Modality("sar", (Band("HH", 10), Band("VV", 10)), "db")
# by the wavelengths of the documents, worked out by hand
NEAREST: Final[dict[str, str]] = {
    "landsat89": "B1 B2 B3 B4 B8A B11 B12",
    "landsat89_toa": "B1 B2 B3 B4 B8A B11 B12 - -",  # panchromatic: green is taken; cirrus: none
    "landsat457": "B2 B3 B4 B8 B11 B12",
    "planetscope": "B1 B2 B3/3 B3/3 B3/3 B4 B5 B8A",
    "planetscope4": "B2 B3 B4 B8",
    "rgb": "B4 B3 B2",
    "s2l1c": "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 - B11 B12",
}


def ready(modality: Modality) -> Modality:
    """With statistics, and other ones for each band."""
    bands = len(modality.bands)
    return modality.with_statistics(
        [100.0 + 10 * c for c in range(bands)], [50.0 + c for c in range(bands)], "test"
    )


def backbone(*modalities: Modality) -> SeaMoBackbone:
    """Random weights everywhere."""
    torch.manual_seed(0)
    model = SeaMoBackbone(SMALL, modalities or (S2, S1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def tokens(model: SeaMoBackbone, name: str, image: Tensor) -> Tensor:
    """The patch embedding alone, [B, D, h, w], of images [B, C, H, W]."""
    embed = model.patches_of(name)
    B, _, H, W = image.shape
    grid = (H // SMALL.patch_size, W // SMALL.patch_size)
    count = grid[0] * grid[1]
    box = torch.tensor([0.0, 0, 1, 1]).expand(B, 1, 4)
    index = torch.arange(count, dtype=torch.int32).expand(B, 1, count)
    patches, _ = embed.gather([image[:, None]], box, index, (H, W))
    found = embed(patches, torch.zeros(count, 16), index, torch.zeros(B, 1, 16))
    return found[:, 0].transpose(1, 2).unflatten(2, grid)


def convolved(image: Tensor, modality: Modality, weight: Tensor, bias: Tensor) -> Tensor:
    """What `tokens` should be."""
    shift, scale = (torch.tensor(each)[:, None, None] for each in modality.normalization())
    return F.conv2d((image - shift) * scale, weight, bias, stride=SMALL.patch_size)


@pytest.mark.parametrize("name", NEAREST)
def test_the_nearest_bands_of_known_sensors(name: str) -> None:
    modality = get_modality(name)
    expected = []
    for band, text in zip(modality.band_names, NEAREST[name].split(), strict=True):
        source, _, parts = text.partition("/")
        share = 1 / int(parts) if parts else 1.0
        expected.append(BandStart(band, None if source == "-" else source, share))
    assert band_starts(S2, modality, "nearest") == tuple(expected)
    shared = shared_bands(S2, modality)
    kept = tuple(BandStart(band, band) for band in shared)
    assert band_starts(S2, modality, "leave_out") == kept
    assert band_starts(S2, modality, "zero") == tuple(
        BandStart(band, band if band in shared else None) for band in modality.band_names
    )


def drawn_sensor(rng: np.random.Generator) -> Modality:
    """Names whose wavelengths nearly agree, or not, or that have none."""
    names = rng.permutation(20)[: rng.integers(1, 15)]
    waves = 400 + 40 * names + rng.choice([0, 20, 70, 300], len(names))
    known = rng.random(len(names)) > 0.1
    return Modality(
        "drawn",
        tuple(
            Band(f"X{name}", 10, float(wave) if here else None)
            for name, wave, here in zip(names, waves, known, strict=True)
        ),
        "dn",
    )


def test_any_two_sensors_follow_the_rule() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        known, modality = drawn_sensor(rng), drawn_sensor(rng)
        shared = set(shared_bands(known, modality))
        takers: dict[str, list[str]] = {}
        for band in modality.bands:
            near = [
                (abs(each.wavelength - band.wavelength), at, each.name)
                for at, each in enumerate(known.bands)
                if each.wavelength is not None and band.wavelength is not None
            ]
            if band.name not in shared and near and min(near)[0] <= 100:
                takers.setdefault(min(near)[2], []).append(band.name)
        expected = []
        for band in modality.band_names:
            source = next((s for s, names in takers.items() if band in names), None)
            if band in shared:
                expected.append(BandStart(band, band))
            elif source is None or source in shared:
                expected.append(BandStart(band, None))
                seen.add("far" if source is None else "taken")
            else:
                expected.append(BandStart(band, source, 1 / len(takers[source])))
                seen.add(len(takers[source]))
        assert band_starts(known, modality, "nearest") == tuple(expected)
    assert seen >= {"far", "taken", 1, 2, 3}


@pytest.mark.parametrize(
    ("name", "unknown"),
    [*product(NEAREST, ["nearest"]), ("landsat89", "zero"), ("s2l1c", "zero")],
)
def test_an_adapted_embedding_is_the_convolution_with_the_expected_weights(
    name: str, unknown: UnknownBands
) -> None:
    model = backbone()
    pretrained = model.patches_of("s2l2a").weight.detach().clone()
    bias = model.patches_of("s2l2a").bias.detach().clone()
    modality = ready(get_modality(name)).on_one_grid(10)
    # in another order, so that a wrong column shows
    modality = modality.subset(np.random.default_rng(1).permutation(modality.band_names).tolist())
    weight = torch.zeros(16, len(modality.bands), 8, 8)
    for channel, (_, source, share) in enumerate(band_starts(S2, modality, unknown)):
        if source:
            weight[:, channel] = pretrained[:, S2.band_names.index(source)] * share
    model.adapt("s2l2a", modality, unknown)
    image = torch.rand(2, len(modality.bands), 16, 24) * 200 + 1
    torch.testing.assert_close(
        tokens(model, "s2l2a", image), convolved(image, modality, weight, bias),
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    for band in shared_bands(S2, modality):
        here, there = modality.band_names.index(band), S2.band_names.index(band)
        assert torch.equal(model.patches_of("s2l2a").weight[:, here], pretrained[:, there]), band


def test_bands_that_share_a_source_add_up_to_it() -> None:
    """Where they show the same, the answer is that of pretraining: PlanetScope's three greens."""
    image = torch.rand(2, 12, 16, 16) * 9000 + 1
    model = backbone()
    pretrained = model.patches_of("s2l2a").modality
    missing = ("B6", "B7", "B8", "B9", "B11", "B12")
    for band in missing:  # at their mean, as if not measured
        at = S2.band_names.index(band)
        image[:, at] = pretrained.mean[at]
    expected = tokens(model, "s2l2a", image)
    sources = ("B1", "B2", "B3", "B3", "B3", "B4", "B5", "B8A")
    at = [S2.band_names.index(band) for band in sources]
    modality = get_modality("planetscope").with_statistics(
        [S2.mean[c] for c in at], [S2.std[c] for c in at], "test"
    )
    model.adapt("s2l2a", modality, "nearest")
    found = tokens(model, "s2l2a", image[:, at])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("group", "source"), [(("B7", "B8", "B8A"), "B8"), (("B2", "B3"), "B3"), (("B6", "B7"), "B7")]
)
def test_shares_keep_the_scale_of_real_bands(
    group: tuple[str, ...], source: str, data_dir: Path
) -> None:
    """Why W / n, and not W / sqrt(n): bands within 100 nm are nearly proportional."""
    files = sorted((data_dir / "eurosat_ms").rglob("*.tif"))[::5]
    if not files:
        pytest.skip("no EuroSAT MS")
    order = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B8A"]
    channels = [order.index(band) for band in group]
    image = torch.from_numpy(np.stack([tifffile.imread(f) for f in files]).astype(np.float32))
    image = image.permute(0, 3, 1, 2)[:, channels]
    mean, std = image.mean((0, 2, 3)).tolist(), image.std((0, 2, 3)).tolist()
    wavelengths = {band.name: band.wavelength for band in S2.bands}
    one = Modality("one", (Band("X", 10, wavelengths[source]),), "dn")
    several = Modality("s", tuple(Band(f"Y{b}", 10, wavelengths[b]) for b in group), "dn")
    at = group.index(source)
    model = backbone(one.with_statistics(mean[at : at + 1], std[at : at + 1], "test"))
    torch.nn.init.zeros_(model.patches_of("one").bias)
    before = tokens(model, "one", image[:, at : at + 1]).detach().std().item()
    model.adapt("one", several.with_statistics(mean, std, "test"), "nearest")
    assert [start.share for start in band_starts(one, several, "nearest")] == [
        1 / len(group)
    ] * len(group)
    after = tokens(model, "one", image).detach().std().item()
    assert after == pytest.approx(before, rel=0.03)
    assert after * len(group) ** 0.5 > 1.35 * before  # what 1 / sqrt(n) would give


@pytest.mark.parametrize("unknown", ["nearest", "zero"])
def test_bands_that_start_from_zero_can_learn(unknown: UnknownBands) -> None:
    model = backbone()
    l1c = get_modality("s2l1c")
    model.adapt("s2l2a", l1c, unknown)
    weight = model.patches_of("s2l2a").weight
    cirrus = l1c.band_names.index("B10")
    assert not weight[:, cirrus].any()
    assert all(weight[:, c].any() for c in range(13) if c != cirrus)
    model({"s2l2a": torch.rand(1, 13, 16, 16) * 3000}).square().sum().backward()
    assert weight.grad is not None
    assert weight.grad[:, cirrus].abs().max() > 0


@pytest.mark.parametrize("band", ["VV", "VH"])
def test_one_polarisation(band: str) -> None:
    model = backbone()
    pretrained = model.patches_of("s1grd").weight.detach().clone()
    model.adapt("s1grd", S1.subset([band]))
    came = model.patches_of("s1grd").weight
    assert torch.equal(came[:, 0], pretrained[:, S1.band_names.index(band)])
    assert model({"s1grd": torch.randn(1, 1, 16, 16) - 12}).isfinite().all()


@pytest.mark.parametrize("unknown", ["nearest", "zero"])
def test_a_polarisation_that_is_unknown_is_near_to_none(unknown: UnknownBands) -> None:
    assert band_starts(S1, HH_VV, unknown) == (BandStart("HH", None), BandStart("VV", "VV"))
    assert band_starts(S1, HH_VV, "leave_out") == (BandStart("VV", "VV"),)
    assert {start.source for start in band_starts(S1, S2, unknown)} == {None}


def test_bands_without_wavelength_are_known_by_name_alone() -> None:
    bare = Modality("bare", (Band("B4", 10), Band("X", 10), Band("B12", 10)), "dn")
    expected = (BandStart("B4", "B4"), BandStart("X", None), BandStart("B12", "B12"))
    assert band_starts(S2, bare, "nearest") == expected
    # and what was pretrained without is near to nothing
    assert band_starts(bare, get_modality("rgb"), "nearest") == tuple(
        BandStart(name, None) for name in ("RED", "GREEN", "BLUE")
    )


def test_a_band_whose_name_means_another_wavelength_is_unknown() -> None:
    """Landsat 5's B1 (485 nm) is Sentinel-2's B2, not its B1 (443 nm)."""
    tm = get_modality("landsat457")
    assert shared_bands(S2, tm) == []
    alone = band_starts(S2.subset(["B1"]), tm, "nearest")
    assert alone[0] == BandStart("B1", "B1", 1.0)  # 42 nm away, for want of a nearer one
    assert {start.source for start in alone[1:]} == {None}


@pytest.mark.parametrize(
    ("name", "modality", "unknown", "message"),
    [
        (
            "s2l2a",
            get_modality("landsat457"),
            "leave_out",
            "no band like B1, B2.*unknown='nearest'",
        ),
        (
            "s2l2a",
            get_modality("rgb"),
            "zero",
            "like RED, GREEN, BLUE of 'rgb'; it has B1.*one at least",
        ),
        ("s1grd", Modality("hh", (Band("HH", 10),), "db"), "nearest", "no band like HH of 'hh'"),
        ("s2l2a", Modality("t", (Band("TIR", 10, 10900),), "dn"), "nearest", "no band like TIR"),
    ],
)
def test_what_nothing_starts_from_is_refused(
    name: str, modality: Modality, unknown: UnknownBands, message: str
) -> None:
    model = backbone()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.adapt(name, ready(modality), unknown)
    torch.testing.assert_close(dict(model.state_dict()), before)
    assert model.modalities[0].band_names == S2.band_names


def test_an_adapted_backbone_is_read_back(tmp_path: Path) -> None:
    model = backbone().adapt("s2l2a", ready(get_modality("planetscope")), "nearest")
    model.adapt("s1grd", ready(HH_VV), "zero")
    file = tmp_path / "model.safetensors"
    save_file(model.state_dict(), file, model_metadata(model.config, model.modalities))
    again = SeaMoBackbone.from_checkpoint(file)
    optical = get_modality("planetscope").band_names
    assert [m.band_names for m in again.modalities] == [optical, ("HH", "VV")]
    assert again.modalities == model.modalities
    image = {"s2l2a": torch.rand(1, 8, 16, 16) * 3000, "s1grd": torch.randn(1, 2, 16, 16) - 12}
    assert torch.equal(again(image), model(image))
    # its bands are now the known ones
    again.adapt("s2l2a", ready(get_modality("planetscope").subset(["NIR", "RED"])))
    weight = model.patches_of("s2l2a").weight
    assert torch.equal(again.patches_of("s2l2a").weight, weight[:, [7, 5]])
