"""assemble_tokens by every backend, against concatenation and indexing in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from bench.ops import assemble_tokens as OP
from seamo_fast.kernels import assemble_tokens
from seamo_fast.kernels._gpu import _cuda_rows
from tests.kernels import cuda_host
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject
from tests.kernels.layouts import LAYOUTS, OF_DTYPES, Layout, laid_out


@pytest.mark.parametrize("sizes", OP.SIZES, ids=str)
def test_sizes(subject: Subject, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    subject.check(subject.make(dtype, **sizes))


@pytest.mark.parametrize("sizes", OP.EMPTY, ids=str)
def test_empty_input(subject: Subject, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    subject.check(subject.make(dtype, **sizes))


@pytest.mark.parametrize(("dtype", "layout"), OF_DTYPES)
def test_layouts(subject: Subject, dtype: torch.dtype, layout: Layout) -> None:
    x = laid_out(subject.make(dtype), layout)
    subject.check(x, layout(subject.gradient(x)))


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_index_dtypes(subject: Subject, dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    x = subject.make(dtype)
    subject.check(x._replace(index=x.index.to(index_dtype)))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_parameters_in_float32(subject: Subject, half: torch.dtype) -> None:
    x = subject.make()
    subject.check(x._replace(visible=x.visible.to(half)))


@pytest.mark.parametrize("wanted", OP.GRADIENTS)
def test_one_gradient_alone(subject: Subject, wanted: str) -> None:
    subject.check_alone(subject.make(), wanted)


def test_runs_repeat_to_the_bit(subject: Subject, dtype: torch.dtype) -> None:
    rows = {} if subject.slow else {"k": 8, "hidden": 24}  # more than 128 to sum
    subject.check_repeats(subject.make(dtype, n=3, **rows))


def test_any_shape(subject: Subject) -> None:
    @subject.for_any(
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(EVERY_DTYPE),
        layouts=st.lists(st.sampled_from(LAYOUTS), min_size=5, max_size=5),
        lead=st.lists(st.integers(1, 4), max_size=2).map(tuple),
        counts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
        n=st.integers(1, 70),
        d=st.integers(1, 130),
    )
    def holds(
        seed: int,
        dtype: torch.dtype,
        layouts: list[Layout],
        lead: tuple[int, ...],
        counts: tuple[int, int],
        n: int,
        d: int,
    ) -> None:
        torch.manual_seed(seed)
        x = subject.make(dtype, lead=lead, k=counts[0], hidden=counts[1], n=n, d=d)
        x = OP.Arguments(*(layout(y) for layout, y in zip(layouts, x, strict=False)))
        subject.check(x, layouts[-1](subject.gradient(x)))


# ---- the public function ----


def test_gradcheck(reference: Backend) -> None:
    x = OP.make(torch.float64, lead=(2, 1), k=2, hidden=2, n=3, d=2)
    floats = [y.requires_grad_() for y in x[:3]]
    assert torch.autograd.gradcheck(assemble_tokens, [*floats, x.index])


def test_autocast_changes_nothing(public: Backend) -> None:
    x = OP.make()
    expected = assemble_tokens(*x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(assemble_tokens(*x), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"visible": torch.zeros(5)},
            ValueError,
            r"visible must have shape \[..., K, D\], but got \[5\]",
        ),
        (
            {"visible": torch.zeros(2, 3, 2, 5, dtype=torch.int32)},
            TypeError,
            r"visible must be a floating-point tensor, but got torch.int32",
        ),
        (
            {"mask_token": torch.zeros(1, 1, 5)},
            ValueError,
            r"mask_token must have shape \[D\] = \[5\], but got \[1, 1, 5\]",
        ),
        (
            {"table": torch.zeros(6, 4)},
            ValueError,
            r"table must have shape \[N, D\] = \[\*, 5\], but got \[6, 4\]",
        ),
        (
            {"index": torch.zeros(2, 4, 6, dtype=torch.int64)},
            ValueError,
            r"index must have shape \[..., N'\] = \[2, 3, \*\], but got \[2, 4, 6\]",
        ),
        (
            {"index": torch.zeros(2, 3, 1, dtype=torch.int64)},
            ValueError,
            r"index must number the 2 visible tokens and the hidden ones, but got 1 numbers",
        ),
        (
            {"index": torch.zeros(2, 3, 6)},
            TypeError,
            r"index must be int32 or int64, but got torch.float32",
        ),
        (
            {"index": torch.full((2, 3, 6), -3)},
            IndexError,
            r"index must hold patch numbers in \[0, 6\), but got -3",
        ),
        (
            {"table": torch.zeros(6, 5, device="meta")},
            ValueError,
            r"table must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(
    public: Backend, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = OP.make(k=2, hidden=4, n=6, d=5)._replace(**change)
    with pytest.raises(error, match=message):
        assemble_tokens(*x)


# ---- single backends ----


def test_every_triton_configuration(triton: Backend, configuration: Callable[..., None]) -> None:
    subject = Subject(OP, triton)
    x = subject.make(torch.bfloat16)
    expected = subject.module.forward(*x)
    for number in range(len(subject.module._CONFIGS)):
        configuration(subject.module._tuned, number)
        assert torch.equal(subject.module.forward(*x), expected)


def test_triton_programs_take_several_blocks(
    triton: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(OP, triton)
    monkeypatch.setattr(subject.module, "_SPANS", 3)
    subject.check(subject.make(lead=(10,)))


def test_cuda_sums_rows_in_spans(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(OP, cuda)
    monkeypatch.setattr(_cuda_rows, "_SPANS", 3)
    subject.check(subject.make(lead=(10,)))
    monkeypatch.setattr(_cuda_rows, "_LEAST", 16)
    subject.check(subject.make(torch.bfloat16, lead=(5,)))


@cuda_host.checked
def test_cuda_meets_one_row_often(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(OP, cuda)
    monkeypatch.setattr(_cuda_rows, "_LEAST", 2000)
    # more than fits in shared memory at once
    subject.check(subject.make(lead=(160,), n=1, d=4))


@cuda_host.checked
def test_cuda_accesses_of_memory(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    subject.check(subject.make(torch.bfloat16))
    subject.check(subject.make(d=5))
