"""The C++ kernels: as exact as PyTorch in the same dtype, the same bits for any thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels import _native
from seamo_fast.kernels.assemble_tokens import reference as assemble_reference
from seamo_fast.kernels.embed_patches import reference as embed_reference
from seamo_fast.kernels.gather_patches import reference as gather_reference
from seamo_fast.kernels.norm_pix_loss import reference as loss_reference
from tests.kernels.budget import assert_within_budget, moved

_module: Any = _native.load()
if isinstance(_module, str):
    pytest.skip(f"the C++ kernels: {_module}", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("poisoned_memory")

Layout = Callable[[Tensor], Tensor]
Results = dict[str, Tensor]
EXACT = torch.float64


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def plain(x: Tensor) -> Tensor:
    return x


def permuted(x: Tensor) -> Tensor:
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


def sliced(x: Tensor) -> Tensor:
    """Part of a larger tensor, whose other values are not numbers."""
    fill = torch.nan if x.is_floating_point() else 1
    larger = torch.full([size + 3 for size in x.shape], fill, dtype=x.dtype)
    return larger[tuple(slice(1, size + 1) for size in x.shape)].copy_(x)


def repeated(x: Tensor) -> Tensor:
    return x[:1].expand_as(x) if x.dim() else x


LAYOUTS = (plain, permuted, sliced, repeated)


class Loss:
    """norm_pix_loss: pred, target, weight, normalize, eps."""

    names = ("loss", "total", "pred")
    forward, backward = _module.norm_pix_loss, _module.norm_pix_loss_backward
    reference = loss_reference

    @staticmethod
    def inputs(dtype: torch.dtype, layout: Layout, k: int, d: int, p: int) -> list[Any]:
        pred, target = torch.randn(2, 3, k, p + 1), torch.randn(2, 3, k, p + 1) * 3 + 1
        weight = torch.rand(2, 3, k) * (torch.rand(2, 3, k) < 0.7)
        return [layout(pred.to(dtype)), layout(target.to(dtype)), layout(weight), True, 1e-6]

    @staticmethod
    def run(op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        loss, total = op.forward(*inputs)
        grad = torch.full_like(loss, 0.7)
        return loss, total, op.backward(grad, *inputs[:3], total, *inputs[3:])


class Assemble:
    """assemble_tokens: visible, mask_token, table, index."""

    names = ("tokens", "visible", "mask_token", "table")
    forward, backward = _module.assemble_tokens, _module.assemble_tokens_backward
    reference = assemble_reference

    @staticmethod
    def inputs(dtype: torch.dtype, layout: Layout, k: int, d: int, p: int) -> list[Any]:
        floats = torch.randn(2, 3, k, d), torch.randn(d), torch.randn(p, d)
        index = torch.randint(0, p, (2, 3, 2 * k + 1))
        return [*(layout(x.to(dtype)) for x in floats), layout(index)]

    @staticmethod
    def run(op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        visible, _, table, index = inputs
        out = op.forward(*inputs)
        grad = upstream(out, visible)
        return out, *op.backward(grad, index, visible.shape[-2], table.shape[0], [True] * 3)


class Embed:
    """embed_patches: patches, weight, bias, table, index, offset."""

    names = ("tokens", "weight", "bias", "table", "offset")
    forward, backward = _module.embed_patches, _module.embed_patches_backward
    reference = embed_reference

    @staticmethod
    def inputs(dtype: torch.dtype, layout: Layout, k: int, d: int, p: int) -> list[Any]:
        floats = (torch.randn(2, 3, k, p), torch.randn(d, p), torch.randn(d), torch.randn(9, d))
        patches, weight, bias, table = (layout(x.to(dtype)) for x in floats)
        index = layout(torch.randint(0, 9, (2, 3, k), dtype=torch.int32))
        return [patches, weight, bias, table, index, layout(torch.randn(2, 3, d).to(dtype))]

    @staticmethod
    def run(op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        patches, _, _, table, index, _ = inputs
        out = op.forward(*inputs)
        grad = upstream(out, patches)
        return out, *op.backward(grad, patches, index, table.shape[0], [True] * 4)


class Gather:
    """gather_patches: the arguments of its schema, with two patches an image."""

    names = ("patches", "valid")
    forward = _module.gather_patches
    reference = gather_reference

    @staticmethod
    def inputs(dtype: torch.dtype, layout: Layout, k: int, d: int, p: int) -> list[Any]:
        p = p % 23 + 1
        grids = [(2, 3 * p + 1, 70), (1, p, p), (d % 7, 1, 5)]
        kinds = (torch.float32, torch.uint16, torch.uint8, torch.int16, torch.float16)
        bands = []
        for i, grid in enumerate(grids):
            band = torch.rand(2, 3, *grid) * 200
            bands.append(layout(torch.where(band < 5, 0, band).to(kinds[(i + k) % len(kinds)])))
        channels = sum(grid[0] for grid in grids)
        extent = torch.rand(2, 3, 2) * 0.5 + 0.5
        boxes = torch.cat([torch.rand(2, 3, 2) * (1 - extent), extent * torch.tensor([1, -1])], -1)
        index = torch.randint(0, 2, (2, 3, k))
        shift, scale = torch.rand(channels) * 100, torch.rand(channels) + 0.5
        order = torch.randperm(channels).tolist()
        return [
            *(bands, layout(boxes), layout(index), shift, scale),
            *(order, (p, 2 * p), p, 0.0, dtype),
        ]

    @staticmethod
    def run(op: Any, inputs: list[Any]) -> tuple[Any, ...]:
        return op.forward(*inputs)


OPS = (Loss, Assemble, Embed, Gather)
each_op = pytest.mark.parametrize("op", OPS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def upstream(out: Tensor, stored: Tensor) -> Tensor:
    """A gradient of the output: the same numbers, and the layout of an input, for every dtype."""
    numbers = torch.randn(out.shape, generator=torch.Generator().manual_seed(out.numel()))
    numbers = numbers.bfloat16().to(out.dtype)
    return numbers if stored.is_contiguous() or stored.dim() < 2 else permuted(numbers)


def results_of(op: Any, implementation: Any, inputs: list[Any]) -> Results:
    results = op.run(implementation, inputs)
    return dict(zip(op.names, (x for x in results if x is not None), strict=True))


def assert_as_exact_as_torch(op: Any, inputs: list[Any]) -> None:
    exact_inputs = [EXACT if isinstance(x, torch.dtype) else moved(x, dtype=EXACT) for x in inputs]
    exact, plain_torch = (results_of(op, op.reference, x) for x in (exact_inputs, inputs))
    actual = results_of(op, op, inputs)
    for name, value in actual.items():
        assert value.dtype == plain_torch[name].dtype, name
        if not value.is_floating_point():
            assert torch.equal(value, plain_torch.pop(name)), name
            exact.pop(name)
    assert_within_budget({name: actual[name] for name in exact}, exact, plain_torch)


@each_op
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(op: Any, dtype: torch.dtype, layout: Layout) -> None:
    for k, d, p in ((5, 17, 9), (7, 64, 16)):
        assert_as_exact_as_torch(op, op.inputs(dtype, layout, k, d, p))


@each_op
@each_dtype
@pytest.mark.parametrize(
    ("k", "d", "p"),
    [(1, 1, 1), (1, 33, 8), (3, 15, 7), (40, 70, 31), (97, 200, 130), (8, 448, 12), (70, 6, 400)],
)
def test_sizes(op: Any, dtype: torch.dtype, k: int, d: int, p: int) -> None:
    assert_as_exact_as_torch(op, op.inputs(dtype, plain, k, d, p))


@each_op
@each_dtype
def test_every_instruction_set(instruction_set: None, op: Any, dtype: torch.dtype) -> None:
    for k, d, p in ((1, 5, 3), (33, 65, 20), (9, 48, 64)):
        assert_as_exact_as_torch(op, op.inputs(dtype, plain, k, d, p))


@each_op
@each_dtype
def test_any_number_of_threads_gives_the_same_bits(
    threads: Callable[[int], None], op: Any, dtype: torch.dtype
) -> None:
    inputs = op.inputs(dtype, plain, 150, 200, 40)
    expected = results_of(op, op, inputs)
    for count in (1, 2, 2, 3, 5, 16):
        threads(count)
        for name, result in results_of(op, op, inputs).items():
            assert torch.equal(result, expected[name]), (name, count)


@each_op
@pytest.mark.parametrize(
    "dtype", [torch.float64, pytest.param(torch.float16, id="float16")], ids=str
)
def test_other_dtypes_are_left_to_the_reference(op: Any, dtype: torch.dtype) -> None:
    inputs = op.inputs(dtype, plain, 4, 5, 6)
    if op is Gather and dtype == torch.float16:
        assert torch.equal(op.forward(*inputs)[0], gather_reference.forward(*inputs)[0])
    else:
        assert op.forward(*inputs) is None


def one_less(x: Any) -> Iterator[Any]:
    """Versions of an argument that do not fit the others."""
    if isinstance(x, Tensor):
        yield x[:1] if x.dim() > 2 else x[..., 1:]
        yield x[None]
        yield x.to("meta")
        yield x.to(torch.complex64)
    elif isinstance(x, (list, tuple)) and len(x) and isinstance(x[0], Tensor):
        yield from ([worse, *x[1:]] for worse in one_less(x[0]))
        yield x[1:]
    elif isinstance(x, (list, tuple)):
        yield x[1:]
        yield [-1, *x[1:]]


@each_op
def test_what_the_checks_refuse_is_not_read(op: Any) -> None:
    inputs = op.inputs(torch.float32, plain, 4, 5, 6)
    assert op.forward(*inputs) is not None
    for place, value in enumerate(inputs):
        for worse in one_less(value):
            assert op.forward(*inputs[:place], worse, *inputs[place + 1 :]) is None, (place, worse)


@pytest.mark.parametrize(
    ("op", "place"), [(Loss, 1), (Loss, 2), (Embed, 0), (Gather, 0), (Gather, 1), (Gather, 3)]
)
def test_what_has_no_gradient_may_not_ask_for_one(op: Any, place: int) -> None:
    inputs = op.inputs(torch.float32, plain, 4, 5, 6)
    asking = inputs[place]
    if isinstance(asking, list):
        asking = [asking[0].float().requires_grad_(), *asking[1:]]
    else:
        asking = asking.detach().requires_grad_()
    assert op.forward(*inputs[:place], asking, *inputs[place + 1 :]) is None


@pytest.mark.parametrize("op", [Assemble, Embed, Gather])
@pytest.mark.parametrize("wrong", [-1, 1000])
def test_patch_numbers_are_checked(op: Any, wrong: int) -> None:
    inputs = op.inputs(torch.float32, plain, 4, 5, 6)
    (index,) = (x for x in inputs if isinstance(x, Tensor) and not x.is_floating_point())
    index[1, 2, 3] = wrong
    with pytest.raises(IndexError, match=f"index must hold patch numbers in .*, but got {wrong}"):
        op.forward(*inputs)


def test_negated_views_are_not_read() -> None:
    pred = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    assert pred.is_neg()
    assert Loss.forward(pred, torch.randn(3, 4), torch.ones(3), True, 1e-6) is None


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    op=st.sampled_from(OPS),
    layout=st.sampled_from(LAYOUTS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    sizes=st.tuples(st.integers(1, 130), st.integers(1, 130), st.integers(1, 40)),
)
def test_any_shape(
    seed: int, op: Any, layout: Layout, dtype: torch.dtype, sizes: Sequence[int]
) -> None:
    torch.manual_seed(seed)
    assert_as_exact_as_torch(op, op.inputs(dtype, layout, *sizes))
