"""The whole model: missing groups, any subset, compilation, FLOPs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seamo_fast.errors import ConfigError
from seamo_fast.modalities import get_modality
from seamo_fast.model import PRESETS, ModelConfig, SeaMo
from seamo_fast.model.config import FusionMode
from seamo_fast.model.flops import forward_flops
from seamo_fast.views import ViewConfig
from tests.factories import MODALITIES, S1, S2, make_batch, make_views, whole_tiles

L1C = get_modality("s2l1c")

SMALL = ModelConfig(
    width=32, depth=2, heads=2, image_size=32, decoder_width=16, decoder_depth=2, decoder_heads=2
)


def test_presets_have_the_published_encoder_sizes() -> None:
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in SeaMo(config, [S2, S1]).encoder.parameters()) / 1e6
            for name, config in PRESETS.items()
        }
    # ViT-Ti/S/B/L without patch embedding: 12 x 12 D^2 and so on.
    assert {name: round(count) for name, count in counts.items()} == {
        "tiny": 5, "small": 21, "base": 85, "large": 302,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({key: 0}, f"model.{key} must be at least 1, but got 0")
            for key in ("width", "depth", "heads", "image_size", "patch_size", "fusion_depth",
                        "decoder_width", "decoder_depth", "decoder_heads")
        ),
        ({"image_size": 33}, "model.image_size 33 must be a multiple of model.patch_size 8"),
        ({"mlp_ratio": 0.0}, "model.mlp_ratio must be above 0, but got 0.0"),
        ({"mlp_ratio": 1 / 17}, "model.mlp_ratio must be above 0"),
        ({"heads": 5}, "model.width 32 must be a multiple of model.heads 5"),
        ({"width": 30, "heads": 1}, "model.width 30 must be a multiple of"),
        ({"width": 36, "heads": 8}, "model.width 36 must be a multiple of"),
        ({"decoder_width": 18, "decoder_heads": 1}, "model.decoder_width 18 must be a multiple of"),
        ({"decoder_heads": 3}, "model.decoder_width 16 must be a multiple of"),
        ({"fusion": "mean"}, "model.fusion must be one of tm, cascade, .* but got 'mean'"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SMALL, **changes)


def test_the_least_sizes_are_accepted() -> None:
    replace(
        SMALL, width=4, depth=1, heads=1, image_size=1, patch_size=1, mlp_ratio=1 / 4,
        decoder_width=4, decoder_depth=1, decoder_heads=1, fusion_depth=1,
    )  # fmt: skip


def test_every_norm_has_the_epsilon_of_mae() -> None:
    norms = [m for m in SeaMo(SMALL, [S2, S1]).modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) > 8
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(("seasons", "modalities"), list(product((1, 2, 4), (1, 2, 3))))
def test_any_seasons_and_modalities(seasons: int, modalities: int) -> None:
    model = SeaMo(SMALL, MODALITIES)
    batch = make_batch(MODALITIES[:modalities], seasons=seasons, size=24)
    losses = model(batch, make_views(batch, SMALL))
    assert list(losses.by_modality) == [m.name for m in MODALITIES[:modalities]]
    torch.testing.assert_close(losses.total, sum(losses.by_modality.values()))
    losses.total.backward()
    used = [n for n, p in model.named_parameters() if p.grad is not None]
    assert any(name.startswith("fusion") for name in used)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_an_invalid_group_has_no_influence_at_all() -> None:
    model = SeaMo(SMALL, [S2, S1]).double()
    missing = [(0, 0, 0), (1, 1, 0), (1, 1, 1)]
    batch = make_batch(missing=missing, seasons=3, size=24)
    views = make_views(batch, SMALL)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(batch, views).total.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    batch.bands["s1grd"][0][1, 1] = 37.0
    batch.bands["s2l2a"][0][0, 0] = torch.tensor(999, dtype=torch.uint16)
    batch.dates[0, 0, 0] = 17_500
    torch.testing.assert_close(gradients(), before)


def test_a_batch_without_anything_valid_gives_zero_loss_and_zero_gradients() -> None:
    model = SeaMo(SMALL, [S2, S1])
    batch = make_batch(missing=list(product(range(2), range(2), range(2))), size=24)
    losses = model(batch, make_views(batch, SMALL))
    losses.total.backward()
    assert losses.total.item() == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())


def test_patches_with_nodata_are_not_counted() -> None:
    model = SeaMo(SMALL, [S2, S1])
    batch = make_batch(holes=[(0, 0, 0), (1, 1, 1)], size=24)
    found = model.reconstruct(batch, make_views(batch, SMALL))
    assert not found["s2l2a"].valid[0, 0].all()
    assert found["s2l2a"].valid[1].all()
    assert not found["s1grd"].valid[1, 1].all()
    assert all(part.target.isfinite().all() for part in found.values())


def test_zeros_of_one_band_take_no_target_away() -> None:
    model = SeaMo(SMALL, [L1C, replace(L1C, name="band", nodata_rule="band")])
    batch = make_batch([L1C], batch=4, size=264)
    b10 = batch.bands["s2l1c"][2].view(torch.int16)[:, :, 2]  # after B1 and B9
    b10[torch.rand(b10.shape) < 0.005] = 0
    by_pixel = model.reconstruct(batch, make_views(batch, SMALL))["s2l1c"]
    assert by_pixel.valid.all()
    batch = replace(batch, modalities=("band",), bands={"band": batch.bands["s2l1c"]})
    by_band = model.reconstruct(batch, make_views(batch, SMALL))["band"]
    assert not by_band.valid.all()
    torch.testing.assert_close(by_pixel.target[by_band.valid], by_band.target[by_band.valid])


def test_pixels_beside_a_swath_are_missing() -> None:
    model = SeaMo(SMALL, [L1C])
    batch = make_batch([L1C], size=264)
    for grid in batch.bands["s2l1c"]:
        grid[0, 0, :, : grid.shape[-1] // 2] = 0
    views = whole_tiles(batch, make_views(batch, SMALL))
    valid = model.reconstruct(batch, views)["s2l1c"].valid
    assert valid.flatten(0, 1)[1:].all()
    assert torch.equal(valid[0, 0], views.hidden[0, 0, 0] >= SMALL.num_patches // 2)


def test_complete_batches_skip_the_mask_without_changing_the_result() -> None:
    model = SeaMo(SMALL, [S2, S1]).double()
    batch = make_batch(size=24)
    views = make_views(batch, SMALL)
    masked = model(replace(batch, complete=False), views)
    torch.testing.assert_close(model(batch, views), masked)


def test_decode_fraction_decodes_a_subset() -> None:
    model = SeaMo(SMALL, [S2, S1]).double()
    batch = make_batch(size=24)
    few = make_views(batch, SMALL, ViewConfig(decode_fraction=0.5))
    assert few.hidden.shape[-1] == 6
    assert model(batch, few).total.isfinite()


def test_without_fusion_groups_of_other_seasons_do_not_matter() -> None:
    model = SeaMo(SMALL, [S2, S1]).double()
    batch = make_batch(size=24)
    views = make_views(batch, SMALL)
    z = model.encode(batch, views, fusion=False)
    batch.bands["s1grd"][0][:, 1] += 3
    other = model.encode(batch, views, fusion=False)
    torch.testing.assert_close(z[:, 0], other[:, 0])
    assert not torch.allclose(z[:, 1], other[:, 1])


@pytest.mark.parametrize("mode", ["tm", "cascade", "concat", "temporal", "modal", "none"])
@pytest.mark.parametrize("fusion", [True, False])
def test_flops_equal_what_torch_counts(mode: FusionMode, fusion: bool) -> None:
    config = replace(SMALL, fusion=mode, date_embedding=False)
    model = SeaMo(config, [S2, S1])
    batch = make_batch(batch=1, seasons=3, size=24)
    ops = torch.ops.seamo

    def linear(patches: object, weight: object, *_: object, out_val: object, **__: object) -> int:
        return 2 * torch.tensor(out_val.shape).prod().item() * weight.shape[1]  # type: ignore[attr-defined]

    def attention(q, k, v, adjacency, valid, **_) -> int:  # type: ignore[no-untyped-def]
        pairs = int(adjacency.sum()) * q.shape[3] * k.shape[3]
        return 4 * q.shape[0] * pairs * q.shape[4] * q.shape[5]

    linear._get_raw = attention._get_raw = True  # type: ignore[attr-defined]
    mapping = {ops.embed_patches: linear, ops._tm_attention: attention}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=mapping) as c:
        model(batch, make_views(batch, config), fusion)
    assert c.get_total_flops() == forward_flops(config, [S2, S1], 3, ViewConfig(), fusion)


@pytest.mark.parametrize("mode", ["tm", "cascade"])
def test_training_step_traces_without_a_graph_break(mode: FusionMode) -> None:
    config = replace(SMALL, fusion=mode)
    model = SeaMo(config, [S2, S1])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for missing in ([], [(0, 1, 0)]):
        batch = make_batch(missing=missing, size=24)
        views = make_views(batch, config)
        model.zero_grad()
        expected = model(batch, views)
        expected.total.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        found = compiled(batch, views)
        found.total.backward()
        torch.testing.assert_close(found, expected)
        again = [p.grad for p in model.parameters() if p.grad is not None]
        torch.testing.assert_close(again, gradients)


@pytest.mark.slow
def test_training_step_compiles_with_inductor() -> None:
    model = SeaMo(SMALL, [S2, S1])
    batch = make_batch(size=24)
    views = make_views(batch, SMALL)
    found = torch.compile(model, fullgraph=True)(batch, views)
    found.total.backward()
    torch.testing.assert_close(found, model(batch, views), rtol=1e-4, atol=1e-5)


def test_autocast_keeps_the_loss_in_float32() -> None:
    model = SeaMo(SMALL, [S2, S1])
    batch = make_batch(size=24)
    views = make_views(batch, SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch, views)
    losses.total.backward()
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, model(batch, views).total, rtol=0.03, atol=0)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())


def test_targets_are_not_rounded_by_autocast() -> None:
    model = SeaMo(SMALL, [S2, S1])
    batch = make_batch(size=24)
    views = make_views(batch, SMALL)
    exact = model.reconstruct(batch, views)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.reconstruct(batch, views)
    for name, part in found.items():
        assert part.prediction.dtype == torch.bfloat16
        assert torch.equal(part.target, exact[name].target)


def test_tiles_on_other_grids_than_the_modality_are_refused() -> None:
    model = SeaMo(SMALL, [S2])
    batch = make_batch([S2.on_one_grid(10)], size=24)
    with pytest.raises(
        ValueError, match=r"s2l2a must have 3 grids .* but got grids of \[12\] bands"
    ):
        model(batch, make_views(batch, SMALL))


def test_unknown_modality_names_the_known_ones() -> None:
    model = SeaMo(SMALL, [S2])
    batch = make_batch([S1], size=24)
    with pytest.raises(ValueError, match="the model has no modality 's1grd'; it was built for s2"):
        model(batch, make_views(batch, SMALL))
    with pytest.raises(ValueError, match="modalities must be named once each"):
        SeaMo(SMALL, [S2, S2])
    with pytest.raises(ValueError, match="'landsat89' has no statistics"):
        SeaMo(SMALL, [get_modality("landsat89")])
