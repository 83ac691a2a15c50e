"""tm_attention by every backend, against attention over concatenated keys in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from bench.ops import tm_attention as OP
from seamo_fast.kernels import tm_attention
from seamo_fast.kernels._gpu import _cuda
from tests.kernels import cuda_host
from tests.kernels.budget import distance, moved
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject, assert_equal, results_of
from tests.kernels.layouts import (
    LAYOUTS,
    Layout,
    at_an_odd_address,
    heads_outside,
    part_of_a_projection,
    plain,
    repeated_heads,
)

TOKENS = ("q", "k", "v")
TOKEN_LAYOUTS = (*LAYOUTS[:-1], heads_outside, part_of_a_projection, repeated_heads)


def few_groups(subject: Subject, dtype: torch.dtype = torch.float32, **sizes: int) -> OP.Arguments:
    """Two groups that see each other, or one that sees itself; random ones if sizes say more."""
    x = subject.make(dtype, **({"b": 1, "t": 2, "m": 1, "h": 1} | sizes))
    groups = len(x.adjacency)
    if groups > 2:
        return x
    seen = torch.eye(groups, dtype=torch.bool) ^ (groups == 2)
    return x._replace(adjacency=seen.to(x.q.device), valid=torch.ones_like(x.valid))


def with_tokens(x: OP.Arguments, layout: Layout) -> OP.Arguments:
    """Queries, keys and values in a layout."""
    return x._replace(**{name: layout(getattr(x, name)) for name in TOKENS})


def check(subject: Subject, x: OP.Arguments, layout: Layout = plain) -> dict[str, Tensor]:
    """Compares with the formula, tokens and their gradient in a layout."""
    return subject.check(with_tokens(x, layout), layout(subject.gradient(x)))


@pytest.mark.parametrize("width", OP.WIDTHS)
def test_head_widths(subject: Subject, dtype: torch.dtype, width: int) -> None:
    tokens = {"k": 18, "keys": 35} if subject.slow else {"k": 33, "keys": 70}
    check(subject, few_groups(subject, dtype, d=width, **tokens))


@pytest.mark.parametrize("sizes", OP.SIZES, ids=str)
def test_sizes(subject: Subject, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    check(subject, few_groups(subject, dtype, **sizes))


@pytest.mark.parametrize("layout", TOKEN_LAYOUTS)
def test_layouts(subject: Subject, dtype: torch.dtype, layout: Layout) -> None:
    # in float32 12 numbers are whole 16 bytes, in half precision they are not
    x = few_groups(subject, dtype, b=2, t=1, h=2, k=19, keys=21, d=12)
    check(subject, x, layout)


@pytest.mark.parametrize("layout", TOKEN_LAYOUTS)
def test_layouts_of_heads_that_need_no_padding(subject: Subject, layout: Layout) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        check(subject, few_groups(subject, dtype, t=1, m=2, k=5, keys=7, d=32), layout)


def test_random_groups(subject: Subject, dtype: torch.dtype) -> None:
    check(subject, subject.make(dtype, b=2, t=3, m=1, h=1))


def test_adjacency_of_the_paper(subject: Subject) -> None:
    x = subject.make(b=1, t=3, m=2, h=1)
    x = x._replace(adjacency=OP.adjacency_of_the_paper(3, 2).to(x.q.device))
    check(subject, x)
    check(subject, x._replace(valid=torch.ones_like(x.valid)))


@pytest.mark.parametrize("transposed", [False, True])
def test_adjacency_of_any_layout(subject: Subject, transposed: bool) -> None:
    x = few_groups(subject, t=3, m=1)
    seen = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool().to(x.q.device)
    x = x._replace(adjacency=seen.mT if transposed else seen, valid=torch.ones_like(x.valid))
    check(subject, x)


def test_adjacency_rows_are_queries(subject: Subject) -> None:
    x = subject.make(b=1, t=1, m=2)
    seen = torch.tensor([[False, True], [False, False]]).to(x.q.device)
    out = check(subject, x._replace(adjacency=seen, valid=torch.ones_like(x.valid)))["out"]
    assert out[0, 0, 0].abs().min() > 0
    assert not out[0, 0, 1].any()


@pytest.mark.parametrize("nothing", ["adjacency", "valid"])
def test_no_keys_at_all_gives_zeros(subject: Subject, dtype: torch.dtype, nothing: str) -> None:
    x = few_groups(subject, dtype, k=17, keys=18)
    results = check(subject, x._replace(**{nothing: torch.zeros_like(getattr(x, nothing))}))
    assert (results.pop("lse") == torch.inf).all()
    for name, value in results.items():
        assert torch.equal(value, torch.zeros_like(value)), name


def test_contents_of_invalid_groups_are_not_used(subject: Subject, dtype: torch.dtype) -> None:
    x = subject.make(dtype, b=1, t=2, m=2, h=1, k=17, keys=18, d=20)
    valid = torch.tensor([[[True, False], [True, True]]])
    x = x._replace(adjacency=torch.ones_like(x.adjacency), valid=valid.to(x.q.device))
    x, grad = with_tokens(x, Tensor.clone), subject.gradient(x)
    runs = [subject.run] if subject.takes(x) else []
    runs += [subject.public] if subject.backend.public else []
    expected = [run(x, grad) for run in runs]
    for tokens in (x.q, x.k, x.v, grad):
        tokens[~x.valid] = torch.nan
    for run, results in zip(runs, expected, strict=True):
        assert_equal(run(x, grad), results)


@pytest.mark.parametrize("sizes", OP.EMPTY, ids=str)
def test_empty_input(subject: Subject, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    x = few_groups(subject, dtype, **sizes)
    results = check(subject, x)
    for name, like in (("out", x.q), ("q", x.q), ("k", x.k), ("v", x.v)):
        assert torch.equal(results[name], torch.zeros_like(like)), name


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")  # by the interpreter
@pytest.mark.parametrize(
    ("keys", "factor"), [(1, 1e4), (7, 1e4), (18, 1e-20), (18, 30.0), (18, 1e4)]
)
def test_small_and_large_scores(subject: Subject, factor: float, keys: int) -> None:
    x = subject.make(b=1, t=3, m=1, k=17, keys=keys, d=20)
    x, grad = x._replace(q=x.q * factor), subject.gradient(x)
    results = subject.run(x, grad)
    assert all(results[name].isfinite().all() for name in ("out", *TOKENS))
    if subject.backend.name != "cpu" or keys < 18:
        return  # exponents of 1e5 leave few digits, and with few keys all cancels
    exact, plain_torch = (
        results_of(OP, subject.reference, *moved((x, grad), dtype=dtype))
        for dtype in (torch.float64, torch.float32)
    )
    for name in ("out", *TOKENS):
        budget = distance(plain_torch[name], exact[name]) + 1e-6 * float(exact[name].norm())
        assert distance(results[name], exact[name]) <= budget, name


def test_runs_repeat_to_the_bit(subject: Subject, dtype: torch.dtype) -> None:
    subject.check_repeats(few_groups(subject, dtype, t=3, m=1, k=19, keys=34))


def test_wide_heads(subject: Subject) -> None:
    x = few_groups(subject, k=17, keys=18, d=160)
    if subject.backend.name == "cuda":
        subject.assert_left(x)
        subject.assert_left(few_groups(subject, d=129))
    else:
        check(subject, x)


def test_any_shape(subject: Subject) -> None:
    batch, seasons, heads, tokens = (1, 3, 2, 40) if subject.slow else (2, 4, 3, 140)

    @subject.for_any(
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(EVERY_DTYPE),
        layouts=st.lists(st.sampled_from(TOKEN_LAYOUTS), min_size=4, max_size=4),
        sizes=st.fixed_dictionaries(
            {
                "b": st.integers(1, batch),
                "t": st.integers(1, seasons),
                "m": st.integers(1, 2),
                "k": st.integers(1, tokens),
                "keys": st.integers(1, tokens),
                "h": st.integers(1, heads),
                "d": st.integers(1, 70),
            }
        ),
    )
    def holds(seed: int, dtype: torch.dtype, layouts: list[Layout], sizes: dict[str, int]) -> None:
        torch.manual_seed(seed)
        x = subject.make(dtype, **sizes)
        q, k, v = (layout(y) for layout, y in zip(layouts, x[:3], strict=False))
        subject.check(x._replace(q=q, k=k, v=v), layouts[-1](subject.gradient(x)))


# ---- the public function ----


def test_gradcheck(reference: Backend) -> None:
    x = OP.make(torch.float64, b=1, t=2, k=2, keys=3, h=1, d=2)
    x = x._replace(
        valid=torch.tensor([[[True, True], [True, False]]]),
        adjacency=torch.tensor(
            [[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool
        ),
    )
    assert torch.autograd.gradcheck(tm_attention, tuple(with_tokens(x, Tensor.requires_grad_)))


def test_keys_and_values_as_views_of_one_projection(public: Backend) -> None:
    x = OP.make()
    both = torch.randn(2, 3, 2, 4, 2, 2, 5, requires_grad=True)
    k, v = both.unbind(4)
    tm_attention(*x._replace(k=k, v=v)).sum().backward()
    exact = both.detach().double().requires_grad_()
    k, v = exact.unbind(4)
    OP.formula(*x._replace(q=x.q.double(), k=k, v=v))[0].sum().backward()
    torch.testing.assert_close(both.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_autocast_changes_nothing(public: Backend) -> None:
    x = OP.make()
    expected = tm_attention(*x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tm_attention(*x), expected)


def test_no_second_derivative(public: Backend) -> None:
    x = with_tokens(OP.make(), Tensor.requires_grad_)
    (grad,) = torch.autograd.grad(tm_attention(*x).square().sum(), x.q, create_graph=True)
    with pytest.raises(RuntimeError, match="seamo::_tm_attention_backward has no derivative"):
        grad.sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"q": torch.zeros(2, 3, 2, 4, 10)},
            ValueError,
            r"q must have shape \[B, T, M, K, H, d\] = .*, but got \[2, 3, 2, 4, 10\]",
        ),
        (
            {"k": torch.zeros(2, 3, 2, 4, 2, 6)},
            ValueError,
            r"k must have shape \[B, T, M, K', H, d\] = \[2, 3, 2, \*, 2, 5\], "
            r"but got \[2, 3, 2, 4, 2, 6\]",
        ),
        (
            {"v": torch.zeros(2, 3, 2, 3, 2, 5)},
            ValueError,
            r"v must have shape \[B, T, M, K', H, d\] = \[2, 3, 2, 4, 2, 5\], "
            r"but got \[2, 3, 2, 3, 2, 5\]",
        ),
        (
            {"v": torch.zeros(2, 3, 2, 4, 2, 5).half()},
            TypeError,
            r"v must be torch.float32 like q, but got torch.float16",
        ),
        (
            {"q": torch.zeros(2, 3, 2, 4, 2, 5, dtype=torch.int32)},
            TypeError,
            r"q must be a floating-point tensor, but got torch.int32",
        ),
        (
            {"q": torch.zeros(2, 3, 2, 4, 2, 0)},
            ValueError,
            r"q must have a head width d of at least 1, but got \[2, 3, 2, 4, 2, 0\]",
        ),
        (
            {"adjacency": torch.zeros(5, 6, dtype=torch.bool)},
            ValueError,
            r"adjacency must have shape \[T \* M, T \* M\] = \[6, 6\], but got \[5, 6\]",
        ),
        (
            {"adjacency": torch.zeros(6, 6)},
            TypeError,
            r"adjacency must be bool, but got torch.float32",
        ),
        (
            {"valid": torch.zeros(2, 3, dtype=torch.bool)},
            ValueError,
            r"valid must have shape \[B, T, M\] = \[2, 3, 2\], but got \[2, 3\]",
        ),
        (
            {"valid": torch.zeros(2, 3, 2, dtype=torch.uint8)},
            TypeError,
            r"valid must be bool, but got torch.uint8",
        ),
        (
            {"adjacency": torch.zeros(6, 6, dtype=torch.bool, device="meta")},
            ValueError,
            r"adjacency must be on cpu like the first input, but got meta",
        ),
    ],
)
def test_bad_input_is_named(
    public: Backend, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tm_attention(*OP.make()._replace(**change))


# ---- single backends ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_takes_whole_blocks(cpu: Backend, dtype: torch.dtype) -> None:
    subject = Subject(OP, cpu)
    x = subject.make(dtype, t=4, m=2, k=64, keys=64, d=64)
    x = x._replace(adjacency=OP.adjacency_of_the_paper(4, 2))
    check(subject, x)
    check(subject, x._replace(valid=torch.ones_like(x.valid)))


def test_cpu_does_not_hide_what_is_not_a_number(cpu: Backend) -> None:
    x = OP.make(b=1, t=1, m=2, k=3, keys=40, d=20)
    x = x._replace(adjacency=torch.eye(2, dtype=torch.bool), valid=torch.ones_like(x.valid))
    x.k[0, 0, 1, 5, 0, 7] = torch.nan
    out, lse = Subject(OP, cpu).module.forward(*x)
    assert out[0, 0, 1, :, 0].isnan().all()
    assert lse[0, 0, 1, 0].isnan().all()
    assert out[0, 0, 0].isfinite().all()
    assert out[0, 0, 1, :, 1].isfinite().all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("q", lambda q: q[0]),
        ("q", lambda q: q[..., :0]),
        ("q", lambda q: q.to("meta")),
        ("k", lambda k: k[..., 1:]),
        ("k", lambda k: k.bfloat16()),
        ("v", lambda v: v[:, :, :, 1:]),
        ("adjacency", lambda adjacency: adjacency[1:]),
        ("adjacency", lambda adjacency: adjacency.int()),
        ("valid", lambda valid: valid[:, 1:]),
        ("valid", lambda valid: valid.float()),
    ],
)
def test_cpu_does_not_read_what_the_checks_refuse(
    cpu: Backend, name: str, change: Callable[[Tensor], Tensor]
) -> None:
    subject, x = Subject(OP, cpu), OP.make()
    outputs, grad = subject.module.forward(*x), subject.gradient(x)
    x = x._replace(**{name: change(getattr(x, name))})
    assert subject.module.forward(*x) is None
    assert subject.module.backward(*OP.backward_arguments(x, outputs, grad, [])) is None


@pytest.mark.parametrize("wrong", ["grad", "out", "lse"])
def test_cpu_checks_what_forward_gave(cpu: Backend, wrong: str) -> None:
    subject, x = Subject(OP, cpu), OP.make()
    out, lse = subject.module.forward(*x)
    given = {"grad": subject.gradient(x), "out": out, "lse": lse}
    given[wrong] = given[wrong][:, 1:]
    outputs = given["out"], given["lse"]
    assert subject.module.backward(*OP.backward_arguments(x, outputs, given["grad"], [])) is None


def test_every_triton_configuration(triton: Backend, configuration: Callable[..., None]) -> None:
    subject = Subject(OP, triton)
    x = few_groups(subject, torch.bfloat16, t=1, k=130, keys=130, d=16)
    grad = subject.gradient(x)
    expected = subject.run(x, grad)
    configuration(subject.module._plan, -1)  # the others differ in stages
    torch.testing.assert_close(subject.run(x, grad), expected, rtol=0.01, atol=1e-5)


def test_cuda_offsets_of_more_than_32_bits(cuda: Backend) -> None:
    if cuda.device != "cpu":
        pytest.skip("takes 4 GB, on the CPU only of addresses")
    subject = Subject(OP, cuda)
    x = few_groups(subject, torch.float16, b=2, k=3, keys=3, d=8)
    given = {**{name: getattr(x, name) for name in TOKENS}, "grad": subject.gradient(x)}
    expected = results_of(OP, subject.module, x, given["grad"])
    far = torch.from_numpy(np.zeros(2**31 + x.q[0].numel(), np.float16))
    for name, near in given.items():
        strides = (2**31, *near.stride()[1:])
        there = given | {name: far.as_strided(near.shape, strides).copy_(near)}
        grad = there.pop("grad")
        assert_equal(results_of(OP, subject.module, x._replace(**there), grad), expected)


def test_cuda_lists_groups_in_several_blocks(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    check(subject, subject.make(b=7, t=7, m=3, h=1, k=1, keys=2, d=2))  # 147 lists, 128 a block


def test_cuda_takes_tf32_where_pytorch_may(cuda: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(OP, cuda)
    x = few_groups(subject, k=9, keys=19, d=24)
    grad = subject.gradient(x)
    exact = subject.check(x, grad)
    monkeypatch.setattr(_cuda, "tf32", lambda: True)
    for name, value in subject.run(x, grad).items():
        assert not torch.equal(value, exact[name])
        torch.testing.assert_close(value, exact[name], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [plain, at_an_odd_address])
@cuda_host.checked
def test_cuda_accesses_of_memory(cuda: Backend, half: torch.dtype | None, layout: Layout) -> None:
    subject = Subject(OP, cuda)
    dtype = half or torch.float32
    check(subject, few_groups(subject, dtype, t=3, k=66, keys=34, d=8), layout)
