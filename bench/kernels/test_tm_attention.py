"""tm_attention against what PyTorch and libraries offer for the same result."""

from __future__ import annotations

from typing import Any

from bench.kernels import attention, common


def work_of(case: common.Case) -> common.Work:
    """Two products of matrices forward and five backward, for each pair of groups."""
    width = case.model.width
    pairs = case.batch * int(attention.adjacency().sum())
    products, tensors = (2, 4) if case.direction == common.FORWARD else (7, 12)
    rows = case.batch * len(attention.GROUPS) * case.tokens
    return common.Work(
        operations=2 * products * pairs * case.tokens**2 * width,
        bytes=tensors * rows * width * case.dtype.itemsize,
    )


BENCH = common.Bench(
    op="tm_attention",
    cases=[
        *common.cases(),
        common.Case("small", common.BOTH, tokens=16),
        common.Case("small", common.BOTH, batch=1),
    ],
    inputs=attention.inputs_of,
    work=work_of,
    contestants=attention.CONTESTANTS,
    brief=("sdpa_merged compiled", "sdpa_concatenated compiled"),
    leaves=("q", "k", "v"),
)


@common.contest(BENCH)
def test_tm_attention(benchmark: Any, name: str, case: common.Case) -> None:
    """Ours against one contestant."""
    common.race(benchmark, BENCH, name, case)
