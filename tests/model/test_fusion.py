"""Who attends to whom, and what missing groups may touch."""

from __future__ import annotations

import pytest
import torch

from seamo_fast.model.config import FusionMode, ModelConfig
from seamo_fast.model.fusion import Fusion, group_adjacency

CPU = torch.device("cpu")
MODES: tuple[FusionMode, ...] = ("tm", "cascade", "concat", "temporal", "modal")


def attended(t: int, m: int, u: int, n: int, mode: str, window: int | None) -> bool:
    """The published rule, one pair of groups at a time."""
    if mode == "concat":
        return True
    temporal = m == n and t != u and (window is None or abs(t - u) <= window)
    modal = t == u and m != n
    return {"temporal": temporal, "modal": modal, "tm": temporal or modal}[mode]


@pytest.mark.parametrize("mode", ["tm", "concat", "temporal", "modal"])
@pytest.mark.parametrize("window", [None, 1, 2])
@pytest.mark.parametrize(("seasons", "modalities"), [(1, 1), (4, 2), (3, 3), (1, 3), (4, 1)])
def test_adjacency(mode: FusionMode, window: int | None, seasons: int, modalities: int) -> None:
    found = group_adjacency(mode, seasons, modalities, window, CPU)
    groups = [(t, m) for t in range(seasons) for m in range(modalities)]
    expected = [[attended(*query, *key, mode, window) for key in groups] for query in groups]
    assert found.tolist() == expected


def fusion(mode: FusionMode, depth: int = 1) -> Fusion:
    return Fusion(ModelConfig(width=32, heads=2, fusion=mode, fusion_depth=depth)).double()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("depth", [1, 2])
def test_a_missing_group_changes_nothing_elsewhere(mode: FusionMode, depth: int) -> None:
    block = fusion(mode, depth)
    z = torch.randn(2, 3, 2, 4, 32, dtype=torch.float64)
    valid = torch.ones(2, 3, 2, dtype=torch.bool)
    valid[0, 1, 0] = valid[1, 2] = False
    other = torch.where(valid[..., None, None], z, torch.full_like(z, 7.0))
    here = valid[..., None, None].expand_as(z)
    torch.testing.assert_close(block(z, valid)[here], block(other, valid)[here])


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_does_not_see_its_neighbours(mode: FusionMode) -> None:
    block = fusion(mode)
    z = torch.randn(3, 2, 2, 4, 32, dtype=torch.float64)
    valid = torch.ones(3, 2, 2, dtype=torch.bool)
    torch.testing.assert_close(block(z, valid)[1:2], block(z[1:2], valid[1:2]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("seasons", "modalities"), [(1, 1), (1, 2), (3, 1)])
def test_one_season_or_one_modality_works(mode: FusionMode, seasons: int, modalities: int) -> None:
    block = fusion(mode)
    z = torch.randn(2, seasons, modalities, 4, 32, dtype=torch.float64, requires_grad=True)
    out = block(z, torch.ones(2, seasons, modalities, dtype=torch.bool))
    out.square().sum().backward()
    assert z.grad is not None
    assert out.isfinite().all()
    assert z.grad.isfinite().all()


def test_cascade_carries_forward_in_time_only() -> None:
    block = fusion("cascade")
    z = torch.randn(1, 3, 2, 4, 32, dtype=torch.float64)
    valid = torch.ones(1, 3, 2, dtype=torch.bool)
    later = z.clone()
    later[:, 2] += 1
    torch.testing.assert_close(block(later, valid)[:, :2], block(z, valid)[:, :2])
    earlier = z.clone()
    earlier[:, 0] += torch.randn(32, dtype=torch.float64)
    assert ((block(earlier, valid) - block(z, valid))[:, 2].abs() > 1e-6).any()


def test_cascade_skips_a_missing_season() -> None:
    block = fusion("cascade")
    z = torch.randn(1, 3, 2, 4, 32, dtype=torch.float64)
    valid = torch.tensor([[[True, True], [False, False], [True, True]]])
    without = block(z[:, [0, 2]], valid[:, [0, 2]])
    torch.testing.assert_close(block(z, valid)[:, [0, 2]], without)
