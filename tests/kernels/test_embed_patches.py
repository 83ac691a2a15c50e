"""embed_patches by every backend, against a product and indexing in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.ops import embed_patches as OP
from seamo_fast.kernels import embed_patches
from seamo_fast.kernels._gpu import _cuda, _cuda_rows
from tests.kernels import cuda_host
from tests.kernels.budget import distance, moved
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject
from tests.kernels.layouts import LAYOUTS, OF_DTYPES, Layout, laid_out


@pytest.mark.parametrize("sizes", OP.SIZES, ids=str)
def test_sizes(subject: Subject, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    subject.check(subject.make(dtype, **sizes))


@pytest.mark.parametrize("sizes", OP.EMPTY, ids=str)
def test_empty_input(subject: Subject, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    subject.check(subject.make(dtype, **sizes))


@pytest.mark.parametrize("sizes", [{}, {"p": 16, "d": 16}], ids=str)
@pytest.mark.parametrize(("dtype", "layout"), OF_DTYPES)
def test_layouts(
    subject: Subject, dtype: torch.dtype, layout: Layout, sizes: dict[str, int]
) -> None:
    x = laid_out(subject.make(dtype, **sizes), layout)
    subject.check(x, layout(subject.gradient(x)))


def test_without_leading_dimensions(subject: Subject) -> None:
    subject.check(subject.make(lead=()))


@pytest.mark.parametrize("absent", [["bias"], ["offset"], ["bias", "offset"]], ids=str)
def test_without_bias_or_offset(subject: Subject, dtype: torch.dtype, absent: list[str]) -> None:
    subject.check(subject.make(dtype)._replace(**dict.fromkeys(absent)))


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_index_dtypes(subject: Subject, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    x = subject.make(dtype)
    subject.check(x._replace(index=x.index.to(index_dtype)))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_parameters_in_float32(subject: Subject, half: torch.dtype) -> None:
    x = subject.make(p=40)
    subject.check(x._replace(patches=x.patches.to(half)))


@pytest.mark.parametrize("wanted", OP.GRADIENTS)
def test_one_gradient_alone(subject: Subject, wanted: str) -> None:
    subject.check_alone(subject.make(), wanted)


def test_runs_repeat_to_the_bit(subject: Subject, dtype: torch.dtype) -> None:
    rows = {} if subject.slow else {"k": 24}  # more than 128 to sum
    subject.check_repeats(subject.make(dtype, n=3, **rows))


def test_any_shape(subject: Subject) -> None:
    @subject.for_any(
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(EVERY_DTYPE),
        layouts=st.lists(st.sampled_from(LAYOUTS), min_size=7, max_size=7),
        sizes=st.fixed_dictionaries(
            {
                "lead": st.lists(st.integers(1, 3), max_size=2).map(tuple),
                "k": st.integers(1, 40),
                "p": st.integers(1, 80),
                "n": st.integers(1, 80),
                "d": st.integers(1, 80),
            }
        ),
    )
    def holds(seed: int, dtype: torch.dtype, layouts: list[Layout], sizes: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        x = subject.make(dtype, **sizes)
        x = OP.Arguments(*(layout(y) for layout, y in zip(layouts, x, strict=False)))
        subject.check(x, layouts[-1](subject.gradient(x)))


# ---- the public function ----


def test_matches_conv2d_and_gather(public: Backend) -> None:
    image = torch.randn(2, 3, 8, 8)
    weight, bias = torch.randn(5, 3, 4, 4), torch.randn(5)
    table, offset = torch.randn(4, 5), torch.randn(2, 5)
    index = torch.tensor([[3, 0, 1], [2, 2, 3]])
    patches = F.unfold(image, 4, stride=4).mT.gather(1, index[..., None].expand(-1, -1, 48))
    tokens = embed_patches(patches, weight.flatten(1), bias, table, index, offset)

    grid = F.conv2d(image.double(), weight.double(), bias.double(), stride=4).flatten(2).mT
    whole = grid + table.double() + offset.double()[:, None]
    expected = whole.gather(1, index[..., None].expand(-1, -1, 5))
    torch.testing.assert_close(tokens.double(), expected, rtol=1e-5, atol=1e-5)


def test_gradcheck(reference: Backend) -> None:
    x = OP.make(torch.float64, lead=(2, 1), k=3, p=2, n=2, d=2)
    floats = {name: getattr(x, name).requires_grad_() for name in OP.GRADIENTS}
    assert torch.autograd.gradcheck(embed_patches, tuple(x._replace(**floats)))


def test_autocast_changes_nothing(public: Backend) -> None:
    x = OP.make()
    expected = embed_patches(*x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embed_patches(*x), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"patches": torch.zeros(6)},
            ValueError,
            r"patches must have shape \[..., K, P\], but got \[6\]",
        ),
        (
            {"patches": torch.zeros(2, 3, 4, 6, requires_grad=True)},
            ValueError,
            r"patches must not require grad: embed_patches gives no gradient for it",
        ),
        (
            {"weight": torch.zeros(5, 7)},
            ValueError,
            r"weight must have shape \[D, P\] = \[\*, 6\], but got \[5, 7\]",
        ),
        (
            {"bias": torch.zeros(4)},
            ValueError,
            r"bias must have shape \[D\] = \[5\], but got \[4\]",
        ),
        (
            {"table": torch.zeros(9, 4)},
            ValueError,
            r"table must have shape \[N, D\] = \[\*, 5\], but got \[9, 4\]",
        ),
        (
            {"table": torch.zeros(9, 5, dtype=torch.int64)},
            TypeError,
            r"table must be a floating-point tensor, but got torch.int64",
        ),
        (
            {"index": torch.zeros(2, 4, dtype=torch.int64)},
            ValueError,
            r"index must have shape \[..., K\] = \[2, 3, 4\], but got \[2, 4\]",
        ),
        (
            {"index": torch.zeros(2, 3, 4, dtype=torch.bool)},
            TypeError,
            r"index must be int32 or int64, but got torch.bool",
        ),
        (
            {"index": torch.full((2, 3, 4), 9)},
            IndexError,
            r"index must hold patch numbers in \[0, 9\), but got 9",
        ),
        (
            {"offset": torch.zeros(2, 5)},
            ValueError,
            r"offset must have shape \[..., D\] = \[2, 3, 5\], but got \[2, 5\]",
        ),
        (
            {"weight": torch.zeros(5, 6, device="meta")},
            ValueError,
            r"weight must be on cpu like the first input, but got meta",
        ),
        (
            {"index": torch.zeros(2, 3, 4, dtype=torch.int32, device="meta")},
            ValueError,
            r"index must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(
    public: Backend, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = OP.make()._replace(**change)
    with pytest.raises(error, match=message):
        embed_patches(*x)


# ---- single backends ----


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rows", [1100, 2500])
def test_triton_sums_many_rows_in_spans(triton: Backend, rows: int, half: bool) -> None:
    subject = Subject(OP, triton)
    # few results: more spans than programs would be worth
    dtype = torch.float16 if half else torch.float32
    subject.check(subject.make(dtype, lead=(1,), k=rows, p=3, d=2, n=5))


@pytest.mark.parametrize("rows", [40, 600])
def test_every_triton_configuration(
    triton: Backend,
    configuration: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    subject = Subject(OP, triton)
    monkeypatch.setattr(subject.module, "_FEW", 500)
    x = subject.make(torch.bfloat16, lead=(2, 1), k=rows // 2, p=70, d=70)
    for number in range(2):
        configuration(subject.module._tuned, number)
        subject.check(x)


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16], ids=str)
def test_cuda_sums_rows_in_spans(
    cuda: Backend, monkeypatch: pytest.MonkeyPatch, half: torch.dtype | None
) -> None:
    subject = Subject(OP, cuda)
    monkeypatch.setattr(_cuda_rows, "_LEAST", 24)
    monkeypatch.setattr(_cuda_rows, "_SPANS", 5)
    dtype = half or torch.float32
    subject.check(subject.make(dtype, lead=(2, 1), k=45, p=3, d=2, n=5))
    subject.check(subject.make(dtype, lead=(2, 1), k=45, p=8, d=16, n=5))


def test_cuda_takes_tf32_where_pytorch_may(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(OP, cuda)
    x = subject.make(p=40)
    exact = subject.reference.forward(*moved(x, dtype=torch.float64))
    full = distance(subject.guarded.forward(*x), exact)
    monkeypatch.setattr(_cuda, "tf32", lambda: True)
    rounded = distance(subject.guarded.forward(*x), exact)
    assert 100 * full < rounded < 1e-2 * float(exact.norm())


@cuda_host.checked
def test_cuda_accesses_of_memory(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    subject.check(subject.make(torch.bfloat16, lead=(2, 1), p=40, d=16))
    subject.check(subject.make(lead=(2, 1), p=19, d=5))
