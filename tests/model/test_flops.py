"""Model FLOPs beside what torch counts in the plain model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seamo_fast.modalities import Modality
from seamo_fast.model import PRESETS, ModelConfig
from seamo_fast.model.config import FusionMode
from seamo_fast.model.flops import forward_flops
from seamo_fast.reference import ReferenceSeaMo
from seamo_fast.views import ViewConfig
from tests.factories import MODALITIES, S1, S2, make_batch, make_views

TINY = PRESETS["tiny"]
VIEWS = ViewConfig()
K = VIEWS.num_visible(TINY.num_patches)
N = TINY.num_patches


def counted(
    config: ModelConfig, modalities: Sequence[Modality], seasons: int, fusion: bool
) -> tuple[int, int]:
    """FLOPs that torch counts in the reference's forward pass, and in its backward pass."""
    model = ReferenceSeaMo(config, modalities)
    batch = make_batch(modalities, batch=1, seasons=seasons)
    # the fused attention of the CPU hides its products from the counter
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:
        loss, _ = model(batch, make_views(batch, config), fusion)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


def embedding(modality: Modality, patches: int) -> int:
    """FLOPs of projecting so many patches of each of its images."""
    return 2 * patches * len(modality.bands) * TINY.patch_size**2 * TINY.width


def wasted(modalities: Sequence[Modality], seasons: int) -> int:
    """What the reference computes in its forward pass and the model does not need.

    It embeds hidden patches too, decodes visible tokens in the last decoder block too (their
    query, their attention, its projection and the MLP), and predicts their pixels.
    """
    width = TINY.decoder_width
    total = 0
    for modality in modalities:
        values = len(modality.bands) * TINY.patch_size**2
        query_and_projection, attention = 2 * 2 * K * width**2, 4 * K * N * width
        mlp = 2 * 2 * K * int(TINY.mlp_ratio * width) * width
        total += embedding(modality, N - K)
        total += query_and_projection + attention + mlp + 2 * K * width * values
    return seasons * total


def dates(modalities: Sequence[Modality], seasons: int) -> int:
    """The linear map of four harmonics a group: left out of the model's FLOPs, being no product
    of any size."""
    return seasons * len(modalities) * 2 * 4 * TINY.width


CASES = [
    ("tm", 4, (S2, S1), True),
    ("tm", 4, (S2, S1), False),
    ("tm", 1, (S2, S1), True),
    ("tm", 3, (S1,), True),
    ("cascade", 4, (S2, S1), True),
    ("cascade", 2, (S1, S2), True),
    ("tm", 2, MODALITIES, True),
    ("concat", 3, (S2, S1), True),
    ("temporal", 4, (S2, S1), True),
    ("modal", 2, (S2, S1), True),
    ("none", 2, (S2, S1), True),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "seasons", "modalities", "fusion"), CASES)
def test_tiny_takes_what_torch_counts_less_what_the_reference_wastes(
    mode: FusionMode, seasons: int, modalities: tuple[Modality, ...], fusion: bool
) -> None:
    config = replace(TINY, fusion=mode)
    forward, backward = counted(config, modalities, seasons, fusion)
    ours = forward_flops(config, modalities, seasons, VIEWS, fusion)
    more = wasted(modalities, seasons) + dates(modalities, seasons)
    assert ours == forward - more
    # a training step counts as three forward passes, though pixels and dates need no gradient
    to_inputs = seasons * sum(embedding(m, N) for m in modalities) + dates(modalities, seasons)
    assert backward == 2 * forward - to_inputs


def test_a_window_of_seasons_takes_what_torch_counts() -> None:
    config = replace(TINY, fusion_window=1, fusion_depth=2)
    forward, _ = counted(config, (S2, S1), 4, True)
    more = wasted((S2, S1), 4) + dates((S2, S1), 4)
    assert forward_flops(config, (S2, S1), 4, VIEWS) == forward - more


def test_the_budget_of_base_is_what_is_counted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    single = forward_flops(PRESETS["base"], (S2, S1), 1, VIEWS, fusion=False)
    whole = forward_flops(PRESETS["base"], (S2, S1), 4, VIEWS)
    few = forward_flops(PRESETS["base"], (S2, S1), 4, ViewConfig(decode_fraction=0.25))
    for line, flops in (
        ("| single season, without fusion |", single),
        ("| four seasons, with fusion |", whole),
        ("| four seasons, `--views.decode_fraction 0.25` |", few),
    ):
        assert f"{line} {3 * flops / 1e9:.2f} |" in page
    assert f"{200 * 251079 * 3 * whole / 1e18:.2f}e18" in page
