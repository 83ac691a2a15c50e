"""tm_attention against what PyTorch and libraries offer for the same result."""

from __future__ import annotations

from typing import Any

from bench.kernels import attention, common
from bench.kernels.attention import Inputs
from bench.ops import tm_attention as op


def arguments(x: Inputs) -> op.Arguments:
    """What ours takes."""
    return op.Arguments(x.q, x.k, x.v, x.adjacency, x.valid)


BENCH = common.Bench(
    op=op,
    cases=[
        *common.cases(),
        common.Case("small", common.BOTH, tokens=16),
        common.Case("small", common.BOTH, batch=1),
    ],
    inputs=attention.inputs_of,
    arguments=arguments,
    contestants=attention.CONTESTANTS,
    brief=("sdpa_merged compiled", "sdpa_concatenated compiled"),
    leaves=("q", "k", "v"),
)


@common.contest(BENCH)
def test_tm_attention(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
