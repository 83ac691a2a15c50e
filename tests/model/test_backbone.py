"""The backbone against SeaMo's own encoder, and against what a user may feed it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.errors import CheckpointError
from seamo_fast.modalities import FIRST_DATE, LAST_DATE, Modality, get_modality
from seamo_fast.model import PRESETS, ModelConfig, SeaMo
from seamo_fast.model.backbone import (
    Output,
    SeaMoBackbone,
    seamo_vit_base,
    seamo_vit_large,
    seamo_vit_small,
    seamo_vit_tiny,
)
from seamo_fast.model.config import FusionMode
from seamo_fast.model.embedding import sincos_positions
from seamo_fast.model.weights import read_weights
from seamo_fast.tiles import TileBatch
from seamo_fast.training.recovery import checkpoint
from seamo_fast.views import Views
from tests.factories import make_batch

CONFIG = ModelConfig(
    width=32, depth=2, heads=2, image_size=32, decoder_width=16, decoder_depth=1, decoder_heads=2
)
S2, S1 = (get_modality(name).on_one_grid(10) for name in ("s2l2a", "s1grd"))
SIZE, PATCHES = 32, 16
MISSING = [(0, 0, 1), (1, 1, 0), (1, 1, 1)]


def images(batch: TileBatch) -> dict[str, Tensor]:
    """What a user of the backbone has: one tensor a modality."""
    return {name: grids[0] for name, grids in batch.bands.items()}


def all_visible(batch: TileBatch) -> Views:
    groups = (batch.batch_size, batch.seasons, len(batch.modalities))
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(*groups[:2], 4)
    visible = torch.arange(PATCHES, dtype=torch.int32).expand(*groups, PATCHES)
    return Views(boxes, visible, visible[..., :0])


def twins(config: ModelConfig = CONFIG) -> tuple[SeaMo, SeaMoBackbone]:
    """A pretraining model with non-trivial weights everywhere, and the backbone it holds."""
    model = SeaMo(config, [S2, S1]).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    backbone = SeaMoBackbone(config, [S2, S1]).double()
    backbone.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("decoders.")}
    )
    return model, backbone


@pytest.mark.parametrize(("seasons", "modalities"), list(product((1, 3), (1, 2))))
@pytest.mark.parametrize("fusion", ["tm", "none"])
def test_tokens_equal_the_pretraining_encoder(fusion: str, seasons: int, modalities: int) -> None:
    model, backbone = twins(replace(CONFIG, fusion=fusion))
    missing = [group for group in MISSING if group[1] < seasons and group[2] < modalities]
    batch = make_batch([S2, S1][:modalities], seasons=seasons, size=SIZE, missing=missing)
    expected = model.encode(batch, all_visible(batch))
    tokens = backbone(images(batch), batch.dates, batch.valid)
    assert tokens.shape == (2, seasons, modalities, PATCHES, 32)
    torch.testing.assert_close(tokens[batch.valid], expected[batch.valid])


def test_map_and_pooled_are_means_over_valid_groups() -> None:
    _, backbone = twins()
    batch = make_batch([S2, S1], size=SIZE, missing=MISSING)
    arguments = (images(batch), batch.dates, batch.valid)
    tokens = backbone(*arguments)
    backbone.output = "map"
    maps = backbone(*arguments)
    backbone.output = "pooled"
    pooled = backbone(*arguments)
    for b in range(2):
        groups = [tokens[b, t, m] for t, m in product(range(2), range(2)) if batch.valid[b, t, m]]
        mean = torch.stack(groups).mean(0)
        for row, column in product(range(4), range(4)):
            torch.testing.assert_close(maps[b, :, row, column], mean[4 * row + column])
        torch.testing.assert_close(pooled[b], mean.mean(0))


def test_a_subset_of_modalities_in_any_order() -> None:
    _, backbone = twins()
    batch = make_batch([S2, S1], size=SIZE)
    both = images(batch)
    forward = backbone(both)
    reverse = backbone({"s1grd": both["s1grd"], "s2l2a": both["s2l2a"]})
    torch.testing.assert_close(reverse.flip(2), forward)
    alone = backbone({"s1grd": both["s1grd"]}, valid=None)
    hidden = torch.tensor([False, True]).expand(2, 2, 2)
    torch.testing.assert_close(alone[:, :, 0], backbone(both, valid=hidden)[:, :, 1])


def test_one_season_may_come_without_its_axis() -> None:
    _, backbone = twins()
    x = images(make_batch([S2, S1], seasons=1, size=SIZE))
    flat = backbone({name: image[:, 0] for name, image in x.items()})
    assert torch.equal(flat, backbone(x))


@pytest.mark.parametrize("size", [(16, 40), (40, 8), (32, 32), (64, 64)])
def test_any_height_and_width_against_a_convolution(size: tuple[int, int]) -> None:
    config = replace(CONFIG, fusion="none")
    _, backbone = twins(config)
    backbone.output = "map"
    image = torch.randint(1, 9000, (2, 12, *size)).to(torch.int16)
    embed, norm = backbone.patch_embed["s2l2a"], torch.tensor(S2.mean)[:, None, None].double()
    normalised = (image - norm) / torch.tensor(S2.std)[:, None, None]
    rows, columns = size[0] // 8, size[1] // 8
    x = F.conv2d(normalised, embed.weight, embed.bias, stride=8).flatten(2).mT
    x = x + sincos_positions(32, rows, columns, (4, 4)) + backbone.modality_embed["s2l2a"]
    for block in backbone.encoder.blocks:
        x = block(x)
    expected = backbone.encoder.norm(x).mT.reshape(2, 32, rows, columns)
    torch.testing.assert_close(backbone({"s2l2a": image}), expected, rtol=1e-5, atol=1e-5)


def test_an_invalid_group_has_no_influence() -> None:
    _, backbone = twins()
    batch = make_batch([S2, S1], seasons=3, size=SIZE, missing=MISSING)
    x = images(batch)
    before = backbone(x, batch.dates, batch.valid)
    for b, t, m in MISSING:
        name = batch.modalities[m]
        x[name][b, t] = torch.tensor(123).to(x[name].dtype)
        batch.dates[b, t, m] = 17_000
    after = backbone(x, batch.dates, batch.valid)
    assert torch.equal(after[batch.valid], before[batch.valid])


@pytest.mark.parametrize("output", ["map", "pooled"])
def test_a_sample_without_valid_groups_gives_zero(output: Output) -> None:
    _, backbone = twins()
    backbone.output = output
    batch = make_batch([S2, S1], size=SIZE)
    batch.valid[1] = False
    features = backbone(images(batch), valid=batch.valid)
    assert not features[1].any()
    assert features.isfinite().all()
    assert features[0].any()


def test_dates_for_all_modalities_or_for_each() -> None:
    _, backbone = twins()
    batch = make_batch([S2, S1], size=SIZE)
    x, shared = images(batch), batch.dates[:, :, :1]
    torch.testing.assert_close(
        backbone(x, shared[:, :, 0]), backbone(x, shared.expand(-1, -1, 2).to(torch.int64))
    )
    assert not torch.allclose(backbone(x), backbone(x, batch.dates))


def test_stored_dtypes_agree() -> None:
    backbone = SeaMoBackbone(CONFIG, [S2])
    values = torch.randint(1, 9000, (1, 12, 16, 16))
    results = [
        backbone({"s2l2a": values.to(dtype)})
        for dtype in (torch.uint16, torch.int16, torch.float32)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_intermediates_are_the_blocks_outputs() -> None:
    _, backbone = twins(replace(CONFIG, fusion="none"))
    batch = make_batch([S2, S1], size=SIZE, missing=MISSING)
    arguments = {"dates": batch.dates, "valid": batch.valid}
    backbone.output = "map"
    x = images(batch)
    first, last = backbone.forward_intermediates(x, **arguments)
    normed = backbone.forward_intermediates(x, [-1], norm=True, **arguments)
    torch.testing.assert_close(normed[0], backbone(x, **arguments))
    assert torch.equal(backbone.forward_intermediates(x, [-2], **arguments)[0], first)
    assert backbone.forward_intermediates(x, [], **arguments) == []
    # one block is what the first of two gives
    del backbone.encoder.blocks[1]
    assert torch.equal(backbone.forward_intermediates(x, [0], **arguments)[0], first)
    assert not torch.equal(first, last)


@pytest.mark.parametrize("fusion", ["tm", "none"])
def test_one_pass_gives_the_groups_of_all_depths(fusion: FusionMode) -> None:
    """Before the mean over groups, in the order asked for; the last are the tokens at the end."""
    _, backbone = twins(replace(CONFIG, fusion=fusion))
    batch = make_batch([S2, S1], size=SIZE, missing=MISSING)
    arguments = {"dates": batch.dates, "valid": batch.valid}
    x = images(batch)
    found, grid = backbone.forward_groups(x, [-1, 0, 0], **arguments)
    assert grid == (SIZE // backbone.patch_size, SIZE // backbone.patch_size)
    maps = backbone.forward_intermediates(x, norm=True, **arguments)
    there = batch.valid[..., None, None]
    for tokens, expected in zip(found, (maps[1], maps[0], maps[0]), strict=False):
        mean = torch.where(there, tokens, 0).sum((1, 2)) / batch.valid.sum((1, 2))[:, None, None]
        torch.testing.assert_close(mean.transpose(1, 2).unflatten(2, grid), expected)
    assert len(found) == 4
    assert torch.equal(torch.where(there, found[3], 0), backbone(x, **arguments))
    assert torch.equal(found[0], found[3]) == (fusion == "none")


@pytest.mark.parametrize(("output", "training"), [("map", False), ("pooled", True)])
def test_compiles_without_a_graph_break(output: Output, training: bool) -> None:
    _, backbone = twins()
    backbone.output = output
    backbone.train(training)
    batch = make_batch([S2, S1], size=SIZE, missing=MISSING)
    arguments = (images(batch), batch.dates, batch.valid)
    compiled = torch.compile(backbone, fullgraph=True, backend="aot_eager")
    expected, came = backbone(*arguments), compiled(*arguments)
    torch.testing.assert_close(came, expected)
    wanted = torch.autograd.grad(expected.square().sum(), backbone.encoder.norm.weight)
    torch.testing.assert_close(
        torch.autograd.grad(came.square().sum(), backbone.encoder.norm.weight), wanted
    )


def test_gradients_reach_every_parameter_but_no_pixel() -> None:
    _, backbone = twins()
    batch = make_batch([S2, S1], size=SIZE)
    backbone(images(batch), batch.dates).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    with pytest.raises(ValueError, match="must not require grad"):
        backbone({"s1grd": torch.randn(1, 2, 8, 8, requires_grad=True)})


def test_adapt_to_another_order_of_bands() -> None:
    _, backbone = twins()
    order = torch.randperm(12)
    image = torch.randint(1, 9000, (2, 12, 16, 24)).to(torch.uint16)
    expected = backbone({"s2l2a": image})
    shuffled = S2.subset([S2.band_names[channel] for channel in order])
    assert backbone.adapt("s2l2a", shuffled) is backbone
    torch.testing.assert_close(backbone({"s2l2a": image[:, order]}), expected)


def test_adapt_to_fewer_bands_in_other_units() -> None:
    _, backbone = twins()
    image = torch.rand(1, 12, 16, 16) * 200 + 20
    names = ("B4", "B3", "B2")
    rgb = replace(S2.subset(names), name="other", unit="uint8").with_statistics(
        (100.0, 90.0, 80.0), (40.0, 30.0, 20.0), "test"
    )
    chosen = [S2.band_names.index(name) for name in names]
    # a band at its mean is 0 after normalisation, as if it were not there
    full = torch.tensor(S2.mean)[:, None, None].expand(1, 12, 16, 16).clone().double()
    normalised = (image[:, chosen] - torch.tensor(rgb.mean)[:, None, None]) / torch.tensor(rgb.std)[
        :, None, None
    ]
    full[:, chosen] += normalised * torch.tensor(S2.std)[chosen][:, None, None]
    expected = backbone({"s2l2a": full})
    backbone.adapt("s2l2a", rgb)
    came = backbone({"s2l2a": image[:, chosen].double()})
    torch.testing.assert_close(came, expected, rtol=1e-4, atol=1e-4)
    assert backbone.modalities[0].name == "s2l2a"
    assert backbone.modalities[0].band_names == names


def test_adapt_takes_bands_of_several_native_grids() -> None:
    names = ("B2", "B5", "B1")
    native = get_modality("s2l2a").subset(names)
    assert len(native.grids) == 3
    _, one = twins()
    _, other = twins()
    other.load_state_dict(one.state_dict())
    image = torch.randint(1, 9000, (2, 3, 16, 24)).to(torch.uint16)
    came = one.adapt("s2l2a", native)({"s2l2a": image})
    expected = other.adapt("s2l2a", S2.subset(names))({"s2l2a": image})
    assert torch.equal(came, expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_frozen_stays_so_when_adapted(frozen: bool) -> None:
    backbone = SeaMoBackbone(CONFIG, [S2, S1])
    if frozen:
        backbone.patches_of("s2l2a").requires_grad_(False)
    backbone.adapt("s2l2a", S2.subset(["B4", "B3"]))
    for name, parameter in backbone.named_parameters():
        ours = name.startswith("patch_embed.s2l2a.")
        assert parameter.requires_grad == (not frozen or not ours), name


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (get_modality("s2l1c"), "no band like B10 of 's2l1c'"),
        (
            get_modality("landsat89").with_statistics([0.0] * 7, [1.0] * 7, "test"),
            "no band like B5, B6, B7 of 'landsat89'",
        ),
        (get_modality("rgb"), "no band like RED, GREEN, BLUE"),
        (replace(S2.subset(["B4"]), mean=None, std=None), "has no statistics"),
    ],
)
def test_adapt_refuses_bands_it_does_not_know(modality: Modality, message: str) -> None:
    backbone = SeaMoBackbone(CONFIG, [S2])
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        backbone.adapt("s2l2a", modality)
    torch.testing.assert_close(dict(backbone.state_dict()), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {**x, "s2l2a": x["s2l2a"][:, :, :3]}, r"12 bands B1, B2.*\[2, 2, 3, 32, 32\]"),
        (lambda x: {"s2l2a": x["s2l2a"][0, 0]}, r"must be \[B, T, C, H, W\]"),
        (lambda x: {"s2": x["s2l2a"]}, "no modality 's2'; it was built for s2l2a, s1grd"),
        (lambda x: {**x, "s1grd": x["s1grd"][:, :1]}, r"same B, T, H and W.*\[2, 1, 32, 32\]"),
        (lambda x: {"s1grd": x["s1grd"][..., :30]}, "patch size 8, but s1grd is 32 x 30"),
        (lambda x: {}, "at least one modality"),
    ],
)
def test_wrong_images_are_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    backbone = SeaMoBackbone(CONFIG, [S2, S1])
    with pytest.raises(ValueError, match=message):
        backbone(change(images(make_batch([S2, S1], size=SIZE))))


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (torch.tensor([[18_000, 84_007]]), r"1900-01-01\) to 84006 .*but got 84007"),
        (torch.tensor([[-25_568, 0]]), "but got -25568"),
        (torch.tensor([[20_201_231, 20_200_229]]), "but got 20201231"),
        (torch.tensor([[1_609_372_800, 0]]), "but got 1609372800"),
        (torch.tensor([[18_000, -(2**31) + 1]]), "but got -2147483647"),
        (torch.tensor([[18_000, 18_100]], dtype=torch.int16), "int32 or int64, .*torch.int16"),
        (torch.tensor([[18_000, 18_100]], dtype=torch.uint16), "int32 or int64, .*torch.uint16"),
        (torch.tensor([[18_000.0, math.nan]]), "int32 or int64, .*torch.float32"),
        (torch.tensor([[True, False]]), "int32 or int64, .*torch.bool"),
    ],
)
def test_what_are_no_days_is_refused(dates: Tensor, message: str) -> None:
    backbone = SeaMoBackbone(CONFIG, [S2])
    x = {"s2l2a": torch.randint(200, 4000, (1, 2, 12, SIZE, SIZE)).float()}
    for given in (dates, dates[..., None]):
        with pytest.raises(ValueError, match=message):
            backbone(x, given)
        with pytest.raises(ValueError, match=message):
            backbone.forward_intermediates(x, dates=given)


def test_the_first_and_the_last_date_and_those_of_no_group_are_taken() -> None:
    backbone = SeaMoBackbone(CONFIG, [S2])
    x = {"s2l2a": torch.randint(200, 4000, (1, 2, 12, SIZE, SIZE)).float()}
    backbone(x, torch.tensor([[FIRST_DATE, LAST_DATE]]))
    valid = torch.tensor([[[True], [False]]])
    dates = torch.tensor([[18_000, 20_201_231]])
    backbone(x, dates, valid)
    backbone(x, dates[..., None], valid)
    with pytest.raises(ValueError, match="but got 20201231"):
        backbone(x, dates, ~valid)


def test_wrong_groups_are_named() -> None:
    backbone = SeaMoBackbone(CONFIG, [S2, S1])
    x = images(make_batch([S2, S1], size=SIZE))
    with pytest.raises(ValueError, match=r"dates must be \[2, 2\] or \[2, 2, 2\]"):
        backbone(x, torch.zeros(2, 1, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"valid must be bool \[2, 2, 2\], but got torch.int64"):
        backbone(x, valid=torch.ones(2, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="blocks 0 to 1, but got 2"):
        backbone.forward_intermediates(x, [2])
    with pytest.raises(ValueError, match="blocks 0 to 1, but got -3"):
        backbone.forward_groups(x, [-3])
    with pytest.raises(ValueError, match="output must be one of tokens, map, pooled"):
        SeaMoBackbone(CONFIG, output="cls")


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (seamo_vit_tiny, "tiny"),
        (seamo_vit_small, "small"),
        (seamo_vit_base, "base"),
        (seamo_vit_large, "large"),
    ],
)
def test_constructors_have_their_sizes(build: Callable[..., SeaMoBackbone], name: str) -> None:
    with torch.device("meta"):
        backbone = build(modalities=["s1grd"], image_size=60, patch_size=12, output="map")
    assert backbone.config == replace(PRESETS[name], image_size=60, patch_size=12)
    assert (backbone.embed_dim, backbone.patch_size) == (PRESETS[name].width, 12)
    assert [modality.name for modality in backbone.modalities] == ["s1grd"]
    assert backbone.output == "map"


TINY = replace(PRESETS["tiny"], image_size=SIZE, fusion_depth=2)


@pytest.fixture(scope="module")
def pretrained() -> SeaMo:
    torch.manual_seed(1)
    # native grids, as shards describe them
    return SeaMo(TINY, [get_modality("s2l2a"), get_modality("s1grd")])


def metadata(model: SeaMo) -> dict[str, str]:
    return {
        "seamo_fast": "0",
        "config": json.dumps(asdict(model.config)),
        "modalities": json.dumps([modality.to_dict() for modality in model.modalities]),
    }


@pytest.fixture
def weights(pretrained: SeaMo, tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "model.safetensors"
    path.parent.mkdir()
    save_file(pretrained.state_dict(), path, metadata(pretrained))
    return path


def test_a_checkpoint_brings_its_config_modalities_and_weights(
    pretrained: SeaMo, weights: Path
) -> None:
    batch = make_batch([S2, S1], size=SIZE, batch=1)
    oracle = SeaMo(TINY, [S2, S1])
    oracle.load_state_dict(pretrained.state_dict())
    expected = oracle.encode(batch, all_visible(batch))
    for path in (weights, str(weights), weights.parent):
        backbone = seamo_vit_tiny(path)
        assert backbone.config == TINY
        torch.testing.assert_close(backbone(images(batch), batch.dates), expected)
    any_size = SeaMoBackbone.from_checkpoint(weights, output="pooled")
    torch.testing.assert_close(any_size(images(batch), batch.dates), expected.mean((1, 2, 3)))


def test_a_checkpoint_may_be_used_in_part(pretrained: SeaMo, weights: Path) -> None:
    backbone = seamo_vit_tiny(weights, ["s1grd"], image_size=64, output="pooled")
    assert backbone.config.image_size == 64
    assert list(backbone.patch_embed) == ["s1grd"]
    state = pretrained.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[name])
    rgb = S2.subset(["B4", "B3", "B2"])
    adapted = seamo_vit_tiny(weights, [rgb])
    assert torch.equal(
        adapted.patch_embed["s2l2a"].weight, state["patch_embed.s2l2a.weight"][:, [3, 2, 1]]
    )
    with pytest.raises(ValueError, match="no modality 's2'; it has s2l2a, s1grd"):
        seamo_vit_tiny(weights, ["s2"])


def test_a_checkpoint_of_another_size_is_refused(weights: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'base' has width 768.*checkpoint has width 192"):
        seamo_vit_base(weights)
    with pytest.raises(CheckpointError, match=r"patch_size 16.*patch_size 8"):
        seamo_vit_tiny(weights, patch_size=16)


@pytest.mark.parametrize("change", [{"heads": 6}, {"depth": 11}, {"mlp_ratio": 3}])
def test_every_size_of_the_encoder_is_compared(tmp_path: Path, change: dict[str, int]) -> None:
    model = SeaMo(replace(TINY, depth=1), [S1])
    model.config = replace(TINY, **change)  # what the file says
    file = tmp_path / "model.safetensors"
    save_file(model.state_dict(), file, metadata(model))
    ((name, value),) = change.items()
    with pytest.raises(CheckpointError, match=rf"'tiny' has .*checkpoint has .*{name} {value}"):
        seamo_vit_tiny(file)


def test_the_newest_undamaged_checkpoint_of_a_run_is_taken(
    pretrained: SeaMo, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    for step in (1, 2, 3):
        state = {name: value + step for name, value in pretrained.state_dict().items()}
        newest = checkpoint.save(folder, step, state, {}, {}, metadata(pretrained), keep=3)
    file = newest / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)
    backbone = seamo_vit_tiny(tmp_path / "run")
    expected = pretrained.encoder.norm.bias + 2
    assert torch.equal(backbone.encoder.norm.bias, expected)
    assert "step_00000003" in caplog.text
    with pytest.raises(CheckpointError, match="altered"):
        seamo_vit_tiny(file)
    with pytest.raises(CheckpointError, match="altered"):
        seamo_vit_tiny(newest)
    with pytest.raises(CheckpointError, match="holds no weights"):
        seamo_vit_tiny(tmp_path)


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state, kept = load_file(path), read_weights(path).metadata
    change(state)
    save_file(state, path, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("encoder.norm.bias"), r"1 missing \(encoder.norm.bias\)"),
        (lambda state: state.update({"cls_token": torch.zeros(1)}), r"1 unknown \(cls_token\)"),
        (
            lambda state: state.update({"encoder.blocks.12.x": torch.zeros(1)}),
            r"1 unknown \(encoder.blocks.12.x\)",
        ),
        (
            lambda state: state.update({"encoder.norm.bias": torch.zeros(4)}),
            r"encoder.norm.bias must be \[192\], but is \[4\]",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    weights: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    rewrite(weights, change)
    with pytest.raises(CheckpointError, match=message):
        seamo_vit_tiny(weights)


def test_files_that_are_no_weights_are_refused(weights: Path) -> None:
    content = weights.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not safetensors at all"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
            seamo_vit_tiny(weights)
    save_file({"weight": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointError, match="does not say which model"):
        seamo_vit_tiny(weights)
