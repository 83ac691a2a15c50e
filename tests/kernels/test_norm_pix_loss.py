"""norm_pix_loss by every backend, against the formula of masked autoencoders in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from bench.ops import norm_pix_loss as OP
from seamo_fast.kernels import norm_pix_loss
from tests.kernels import cuda_host
from tests.kernels.budget import largest, moved
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject, assert_equal, differentiated
from tests.kernels.layouts import LAYOUTS, OF_DTYPES, Layout, laid_out


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("sizes", OP.SIZES, ids=str)
def test_sizes(
    subject: Subject, dtype: torch.dtype, normalize: bool, sizes: dict[str, Any]
) -> None:
    subject.check(subject.make(dtype, normalize=normalize, **sizes))


@pytest.mark.parametrize("lead", OP.LEADS, ids=str)
def test_leading_dimensions(subject: Subject, lead: tuple[int, ...]) -> None:
    subject.check(subject.make(lead=lead))


@pytest.mark.parametrize("normalize", [True, False])
def test_eps(subject: Subject, dtype: torch.dtype, normalize: bool) -> None:
    subject.check(subject.make(dtype, normalize=normalize, eps=0.1))


def test_one_value_that_is_not_normalized(subject: Subject, dtype: torch.dtype) -> None:
    subject.check(subject.make(dtype, p=1, normalize=False))


@pytest.mark.filterwarnings("ignore:var\\(\\)")  # the formula's, of nothing
@pytest.mark.parametrize("sizes", OP.EMPTY, ids=str)
def test_no_patches_give_zero(subject: Subject, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    results = subject.check(subject.make(dtype, **sizes))
    assert results["loss"].item() == 0


@pytest.mark.parametrize(("dtype", "layout"), OF_DTYPES)
def test_layouts(subject: Subject, dtype: torch.dtype, layout: Layout) -> None:
    subject.check(laid_out(subject.make(dtype), layout))


@pytest.mark.parametrize(
    "kind", [torch.bool, torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str
)
def test_weights_of_any_dtype(subject: Subject, kind: torch.dtype) -> None:
    x = subject.make()
    x = x._replace(weight=(x.weight > 0).to(kind))
    results = subject.check(x)
    assert not results["pred"][x.weight == 0].any()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["pred", "target"])
def test_two_dtypes(subject: Subject, half: torch.dtype, name: str) -> None:
    x = subject.make()
    subject.check(x._replace(**{name: getattr(x, name).to(half)}))


def test_no_weight_gives_zero(subject: Subject, dtype: torch.dtype) -> None:
    x = subject.make(dtype)
    results = subject.check(x._replace(weight=torch.zeros_like(x.weight)))
    assert not any(value.any() for value in results.values())


def test_patches_without_weight_are_not_used(subject: Subject) -> None:
    x = subject.make()
    unused = x.weight == 0
    assert unused.any()
    expected, expected_public = subject.run(x), subject.public(x)
    for values in (x.pred, x.target):
        values[unused] = torch.nan
    assert_equal(subject.run(x), expected)
    if subject.backend.public:
        assert_equal(subject.public(x), expected_public)


def test_constant_patches(subject: Subject) -> None:
    x = subject.make()
    for value in (0.1, 7.0):
        subject.check(x._replace(target=torch.full_like(x.target, value)))


def test_large_mean_keeps_the_variance(subject: Subject) -> None:
    x = subject.make()
    x = x._replace(target=x.target + 1000)
    exact = moved(x, dtype=torch.float64)
    expected = differentiated(OP, OP.formula, exact, subject.gradient(exact))
    found = [subject.run(x), subject.public(x)] if subject.backend.public else [subject.run(x)]
    for results in found:
        for name, value in results.items():
            size = float(expected[name].abs().max())
            assert largest(value, expected[name]) <= 1e-3 * size, name


def test_runs_repeat_to_the_bit(subject: Subject, dtype: torch.dtype) -> None:
    subject.check_repeats(subject.make(dtype, lead=(4, 16), p=12))
    subject.check_repeats(subject.make(dtype))


def test_any_shape(subject: Subject) -> None:
    @subject.for_any(
        seed=st.integers(0, 2**31),
        dtypes=st.lists(st.sampled_from(EVERY_DTYPE), min_size=2, max_size=2),
        layouts=st.lists(st.sampled_from(LAYOUTS), min_size=3, max_size=3),
        sizes=st.fixed_dictionaries(
            {
                "lead": st.lists(st.integers(1, 7), max_size=3).map(tuple),
                "p": st.integers(2, 300),
                "normalize": st.booleans(),
                "eps": st.sampled_from([1e-6, 0.01]),
            }
        ),
    )
    def holds(
        seed: int, dtypes: list[torch.dtype], layouts: list[Layout], sizes: dict[str, Any]
    ) -> None:
        torch.manual_seed(seed)
        x = subject.make(**sizes)
        pred, target, weight = (layout(y) for layout, y in zip(layouts, x[:3], strict=True))
        pred, target = pred.to(dtypes[0]), target.to(dtypes[1])
        subject.check(x._replace(pred=pred, target=target, weight=weight))


# ---- the public function ----


@pytest.mark.parametrize("normalize", [True, False])
def test_gradcheck(reference: Backend, normalize: bool) -> None:
    x = OP.make(torch.float64, lead=(2, 3), p=4)
    assert torch.autograd.gradcheck(
        lambda pred: norm_pix_loss(pred, x.target, x.weight, normalize=normalize),
        [x.pred.requires_grad_()],
    )


def test_autocast_changes_nothing(public: Backend) -> None:
    x = OP.make()
    expected = norm_pix_loss(*x[:3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm_pix_loss(*x[:3]), expected)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"pred": torch.tensor(1.0)},
            ValueError,
            r"pred must have shape \[..., P\], but got \[\]",
        ),
        (
            {"pred": torch.zeros(2, 3, 4, 1), "target": torch.zeros(2, 3, 4, 1)},
            ValueError,
            r"pred must have at least 2 values a patch, but got \[2, 3, 4, 1\]",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 11)},
            ValueError,
            r"target must have shape \[..., P\] = \[2, 3, 4, 12\], but got \[2, 3, 4, 11\]",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 12, dtype=torch.uint8)},
            TypeError,
            r"target must be a floating-point tensor, but got torch.uint8",
        ),
        (
            {"target": torch.zeros(2, 3, 4, 12, requires_grad=True)},
            ValueError,
            r"target must not require grad: norm_pix_loss gives no gradient for it",
        ),
        (
            {"weight": torch.zeros(2, 3)},
            ValueError,
            r"weight must have shape \[...\] = \[2, 3, 4\], but got \[2, 3\]",
        ),
        (
            {"weight": torch.zeros(2, 3, 4, dtype=torch.int64)},
            TypeError,
            r"weight must be a floating-point tensor, but got torch.int64",
        ),
        (
            {"weight": torch.zeros(2, 3, 4, device="meta")},
            ValueError,
            r"weight must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(
    public: Backend, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = OP.make(lead=(2, 3, 4), p=12)._replace(**change)
    with pytest.raises(error, match=message):
        norm_pix_loss(*x[:3])


# ---- single backends ----


def test_triton_programs_take_several_blocks(
    triton: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(OP, triton)
    monkeypatch.setattr(subject.module, "_PROGRAMS", 3)
    subject.check(subject.make(lead=(31,), p=1024))


def test_cuda_blocks_take_several_patches(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(OP, cuda)
    monkeypatch.setattr(subject.module, "_BLOCKS", 2)
    subject.check(subject.make(lead=(37,), p=24))


@cuda_host.checked
def test_cuda_accesses_of_memory(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    for dtype, p in ((torch.bfloat16, 40), (torch.float32, 13)):
        subject.check(subject.make(dtype, lead=(9,), p=p))
