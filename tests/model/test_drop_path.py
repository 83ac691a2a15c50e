"""Stochastic depth: the formula, its expectation, and that nothing changes where nothing drops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from seamo_fast.model import ModelConfig
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.fusion import CascadeBlock, FusionBlock, group_adjacency
from seamo_fast.model.layers import Block, drop_path_scales
from tests.factories import make_batch

CONFIG = ModelConfig(width=16, depth=3, heads=2, image_size=16, patch_size=8, fusion_depth=2)
SCALES = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, 1.5]])
BLOCKS = ("encoder", "fusion", "cascade")


def noisy(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)


def block_and_inputs(kind: str) -> tuple[nn.Module, Tensor, tuple[Tensor, ...]]:
    """A block, tokens of four samples, and what else it takes."""
    if kind == "encoder":
        block: nn.Module = Block(16, 2, 4.0)
        keep = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 0]]).bool()
        x, others = torch.randn(4, 6, 16), (keep,)
    else:
        block = FusionBlock(CONFIG) if kind == "fusion" else CascadeBlock(CONFIG)
        seasons = 3 if kind == "fusion" else 1
        mode = "tm" if kind == "fusion" else "modal"
        adjacency = group_adjacency(mode, seasons, 2, None, torch.device("cpu"))
        x, others = torch.randn(4, 3, 2, 5, 16), (adjacency, torch.rand(4, 3, 2) < 0.7)
    noisy(block)
    return block, x, others


@pytest.mark.parametrize("kind", BLOCKS)
def test_scale_one_changes_no_bit_and_scale_zero_leaves_the_sample(kind: str) -> None:
    block, x, others = block_and_inputs(kind)
    plain = block(x, *others)
    scaled = block(x, *others, scales=SCALES)
    assert torch.equal(block(x, *others, scales=torch.ones(4, 2)), plain)
    torch.testing.assert_close(scaled[1], plain[1])
    assert not torch.equal(scaled[2:], plain[2:])
    first = x[0] if kind != "cascade" else x[0, :1]  # later seasons carry the one before
    assert torch.equal(scaled[0] if kind != "cascade" else scaled[0, :1], first)


def test_a_cascade_that_drops_everything_still_carries_seasons_over() -> None:
    block, x, (adjacency, _) = block_and_inputs("cascade")
    assert isinstance(block, CascadeBlock)
    seasons = [x[:, 0]]
    for t in (1, 2):
        seasons.append(block.carry(torch.cat([x[:, t], seasons[-1]], dim=-1)))
    found = block(x, adjacency, torch.ones(4, 3, 2, dtype=torch.bool), torch.zeros(4, 2))
    torch.testing.assert_close(found, torch.stack(seasons, dim=1))


def branches(block: Block, x: Tensor, keep: Tensor, scales: Tensor) -> Tensor:
    """The formula, each branch by its layers."""
    first, second = scales.double().view(4, 2, 1, 1).unbind(1)
    y = x + first * block.attn(block.norm1(x), keep)
    return y + second * block.mlp(block.norm2(y))


def test_a_block_is_the_formula_forward_and_backward() -> None:
    """In float32 the fused kernels run where there are any, in float64 the layers."""
    block, x, (keep,) = block_and_inputs("encoder")
    assert isinstance(block, Block)
    exact = Block(16, 2, 4.0).double()
    exact.load_state_dict(block.state_dict())
    given, wanted = x.clone().requires_grad_(), x.double().requires_grad_()
    found, expected = block(given, keep, 0, SCALES), branches(exact, wanted, keep, SCALES)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(given.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(block.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)


def test_tokens_that_need_no_output_are_skipped_in_both_paths() -> None:
    block, x, (keep,) = block_and_inputs("encoder")
    whole = block(x, keep, 0, SCALES)
    # the branches work token by token once keys and values are there
    torch.testing.assert_close(block(x, keep, 2, SCALES), whole[:, 2:])


@pytest.mark.parametrize("branch", [0, 1])
def test_the_expectation_is_the_branch(branch: int) -> None:
    block, x, (keep,) = block_and_inputs("encoder")
    p = 0.3

    def only(scale: float) -> Tensor:
        scales = torch.zeros(4, 2)
        scales[:, branch] = scale
        return block(x, keep, 0, scales)

    torch.testing.assert_close((1 - p) * only(1 / (1 - p)) + p * only(0.0), only(1.0))


def test_rates_rise_linearly_and_kept_branches_make_up_for_dropped_ones() -> None:
    count, blocks, rate = 1000, 5, 0.4
    draws = ((torch.arange(count) + 0.5) / count)[:, None, None].expand(count, blocks, 2)
    scales = drop_path_scales(blocks, rate, draws.double())
    expected = torch.tensor([0, 0.1, 0.2, 0.3, 0.4])[:, None].expand(blocks, 2)
    torch.testing.assert_close((scales == 0).float().mean(0), expected)
    torch.testing.assert_close(scales.mean(0), torch.ones(blocks, 2))
    assert scales.dtype == torch.float32


def test_a_single_block_and_rate_zero_drop_nothing() -> None:
    draws = torch.zeros(2, 1, 2)
    assert torch.equal(drop_path_scales(1, 0.9, draws), torch.ones(2, 1, 2))
    assert torch.equal(drop_path_scales(4, 0.0, torch.zeros(2, 4, 2)), torch.ones(2, 4, 2))


@pytest.fixture
def images() -> dict[str, Tensor]:
    made = make_batch(backbone().modalities, batch=3, seasons=2, size=16)
    return {name: grids[0].float() for name, grids in made.bands.items()}


def backbone(fusion: str = "tm") -> SeaMoBackbone:
    torch.manual_seed(0)
    return SeaMoBackbone(replace(CONFIG, fusion=fusion), ["s2l2a", "s1grd"])  # type: ignore[arg-type]


@pytest.mark.parametrize("fusion", ["tm", "cascade", "none"])
def test_evaluation_and_rate_zero_change_no_bit(fusion: str, images: dict[str, Tensor]) -> None:
    model = backbone(fusion)
    blocks = 3 if fusion == "none" else 5
    plain = model.forward_groups(images, [0])[0]
    for mode, scales in ((True, torch.ones(3, blocks, 2)), (False, torch.rand(3, blocks, 2))):
        model.train(mode)
        found = model.forward_groups(images, [0], scales=scales)[0]
        assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_an_item_that_skips_all_blocks_is_its_embedding_and_others_do_not_notice(
    images: dict[str, Tensor],
) -> None:
    model = backbone().train()
    scales = torch.ones(3, 5, 2)
    scales[1] = 0
    (_, found), _ = model.forward_groups(images, [0], scales=scales)
    (_, plain), _ = model.forward_groups(images, [0])
    tokens, _ = model._embed(images, None, None)
    assert model.fusion is not None
    torch.testing.assert_close(found[1], model.fusion.norm(model.encoder.norm(tokens[1])))
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])


def test_each_block_takes_its_own_scale(images: dict[str, Tensor]) -> None:
    """Parameters of a dropped branch have no gradient, all others have one."""
    model = backbone().train()
    scales = torch.ones(3, 5, 2)
    scales[:, 1, 0] = scales[:, 2, 1] = scales[:, 4, 1] = 0
    (z,), _ = model.forward_groups(images, scales=scales)
    (z * torch.randn_like(z)).sum().backward()
    still = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    dropped = ("encoder.blocks.1.attn", "encoder.blocks.1.norm1", "encoder.blocks.2.mlp")
    dropped += ("encoder.blocks.2.norm2", "fusion.blocks.1.mlp", "fusion.blocks.1.norm2")
    names = [name for name, _ in model.named_parameters()]
    expected = {name for name in names if name.startswith((*dropped, "date_embed"))}
    assert still == expected
