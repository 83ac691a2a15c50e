"""residual_attention and residual_mlp, as a block calls them, against PyTorch's layers."""

from __future__ import annotations

from typing import Any

from bench.kernels import block, common

BENCH = common.Bench(
    op=block,
    cases=[
        common.Case(size, direction)
        for size in common.SIZES
        for direction in (common.FORWARD, common.BOTH)
    ],
    inputs=block.inputs_of,
    arguments=lambda x: x,
    contestants={
        common.OURS: common.Contestant(block.ours, compiled=None),
        "layers": common.Contestant(block.layers),
    },
    brief=("layers", "layers compiled"),
    leaves=("x",),
    parameters=lambda x: list(x.block.parameters()),
    tolerance=1e-3,
    least_rounds=3,
)


@common.contest(BENCH)
def test_block(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
