"""Every registered operator under torch.library.opcheck, every public function under compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seamo_fast import kernels

Layout = Callable[[Tensor], Tensor]


def plain(x: Tensor) -> Tensor:
    return x


def permuted(x: Tensor) -> Tensor:
    """The same values, dense, with the dimensions the other way round in memory."""
    order = list(range(x.dim()))[::-1]
    return x.permute(order).contiguous().permute(order)


def gather_inputs(layout: Layout, dtype: torch.dtype, batch: int) -> tuple[Any, ...]:
    bands = [torch.rand(batch, 2, 2, 8, 8), torch.rand(batch, 2, 1, 4, 4)]
    return (
        [layout((band * 99).to(dtype)) for band in bands],
        layout(torch.tensor([0.1, 0.2, -0.8, 0.7]).expand(batch, 2, 4)),
        layout(torch.randint(0, 4, (batch, 2, 3))),
        torch.rand(3),
        torch.rand(3),
    )


def embed_inputs(layout: Layout, dtype: torch.dtype, batch: int) -> tuple[Any, ...]:
    return (
        layout(torch.randn(batch, 2, 3, 6).to(dtype)),
        layout(torch.randn(5, 6)).requires_grad_(),
        torch.randn(5).requires_grad_(),
        layout(torch.randn(4, 5)).requires_grad_(),
        layout(torch.randint(0, 4, (batch, 2, 3))),
        layout(torch.randn(batch, 2, 5)).requires_grad_(),
    )


def assemble_inputs(layout: Layout, dtype: torch.dtype, batch: int) -> tuple[Any, ...]:
    return (
        layout(torch.randn(batch, 2, 3, 5).to(dtype)).requires_grad_(),
        torch.randn(5).requires_grad_(),
        layout(torch.randn(4, 5)).requires_grad_(),
        layout(torch.randint(0, 4, (batch, 2, 7))),
    )


def attention_inputs(layout: Layout, dtype: torch.dtype, batch: int) -> tuple[Any, ...]:
    q, k, v = (
        layout(torch.randn(batch, 2, 2, tokens, 2, 4).to(dtype)).requires_grad_()
        for tokens in (3, 5, 5)
    )
    return q, k, v, layout(torch.rand(4, 4) < 0.6), layout(torch.rand(batch, 2, 2) < 0.8)


def loss_inputs(layout: Layout, dtype: torch.dtype, batch: int) -> tuple[Any, ...]:
    pred, target = (layout(torch.randn(batch, 3, 6).to(dtype)) for _ in range(2))
    return pred.requires_grad_(), target, layout(torch.rand(batch, 3))


def gather(*inputs: Any) -> tuple[Tensor, Tensor]:
    return kernels.gather_patches(
        *inputs, order=(2, 0, 1), image_size=8, patch_size=4, nodata=3.0, dtype=torch.bfloat16
    )


CASES: dict[str, tuple[Callable[..., Any], Callable[..., tuple[Any, ...]]]] = {
    "gather_patches": (gather, gather_inputs),
    "embed_patches": (kernels.embed_patches, embed_inputs),
    "assemble_tokens": (kernels.assemble_tokens, assemble_inputs),
    "tm_attention": (kernels.tm_attention, attention_inputs),
    "norm_pix_loss": (kernels.norm_pix_loss, loss_inputs),
}
DTYPES = {
    "gather_patches": (torch.uint16, torch.int16, torch.float32),
    "embed_patches": (torch.float32, torch.bfloat16, torch.float64),
    "assemble_tokens": (torch.float32, torch.bfloat16, torch.float64),
    "tm_attention": (torch.float32, torch.bfloat16, torch.float64),
    "norm_pix_loss": (torch.float32, torch.bfloat16, torch.float64),
}


def detached(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.detach()
    return type(inputs)(map(detached, inputs)) if isinstance(inputs, (list, tuple)) else inputs


def operator_calls(name: str, inputs: tuple[Any, ...]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every operator of an operation with arguments: forward first, then backward."""
    ops = torch.ops.seamo
    if name == "gather_patches":
        yield ops.gather_patches.default, (*inputs, (2, 0, 1), (8, 8), 4, 3.0, torch.float16)
    elif name == "embed_patches":
        yield ops.embed_patches.default, inputs
        grad = torch.randn_like(ops.embed_patches(*detached(inputs)))
        for needed in ([True] * 4, [True, False, True, False]):
            yield (
                ops._embed_patches_backward.default,
                (grad, inputs[0], inputs[4], inputs[3].shape[0], needed),
            )
    elif name == "assemble_tokens":
        yield ops.assemble_tokens.default, inputs
        grad = permuted(torch.randn_like(ops.assemble_tokens(*detached(inputs))))
        for needed in ([True] * 3, [False, True, False]):
            yield (
                ops._assemble_tokens_backward.default,
                (grad, inputs[3], inputs[0].shape[-2], inputs[2].shape[0], needed),
            )
    elif name == "tm_attention":
        yield ops._tm_attention.default, inputs
        q, k, v, adjacency, valid = detached(inputs)
        out, lse = ops._tm_attention(q, k, v, adjacency, valid)
        grad = permuted(torch.randn_like(out))
        yield ops._tm_attention_backward.default, (grad, q, k, v, out, lse, adjacency, valid)
    else:
        for normalize in (True, False):
            yield ops._norm_pix_loss.default, (*inputs, normalize, 1e-6)
        pred, target, weight = detached(inputs)
        loss, total = ops._norm_pix_loss(pred, target, weight, True, 1e-6)
        yield (
            ops._norm_pix_loss_backward.default,
            (torch.ones_like(loss), pred, target, weight, total, True, 1e-6),
        )


@pytest.mark.parametrize(
    ("layout", "batch"),
    [(plain, 2), (permuted, 2), (plain, 0)],
    ids=["plain", "permuted", "empty"],
)
@pytest.mark.parametrize(
    ("name", "dtype"), [(name, dtype) for name in CASES for dtype in DTYPES[name]], ids=str
)
def test_opcheck(name: str, dtype: torch.dtype, layout: Layout, batch: int) -> None:
    inputs = CASES[name][1](layout, dtype, batch)
    for operator, arguments in operator_calls(name, inputs):
        torch.library.opcheck(operator, arguments)
        if any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
            torch.library.opcheck(
                operator, detached(arguments), test_utils=("test_schema", "test_faketensor")
            )


def test_opcheck_without_bias_and_offset() -> None:
    patches, weight, _, table, index, _ = embed_inputs(plain, torch.float32, 2)
    torch.library.opcheck(
        torch.ops.seamo.embed_patches.default, (patches, weight, None, table, index, None)
    )


def test_every_operator_is_checked() -> None:
    checked = set()
    for name, (_, inputs) in CASES.items():
        for operator, _ in operator_calls(name, inputs(plain, torch.float32, 1)):
            checked.add(operator.name())
    registered = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("seamo::")
    }
    assert checked == registered


def gradients(function: Callable[..., Any], inputs: tuple[Any, ...]) -> list[Tensor]:
    """The outputs, and the gradients of the first where there are any."""
    outputs = function(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        return list(outputs)
    return [*outputs, *torch.autograd.grad(outputs[0].square().sum(), wanted)]


def assert_compiled_is_the_same(name: str, backend: str, sizes: tuple[int, ...]) -> None:
    function, make_inputs = CASES[name]
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    for batch in sizes:
        inputs = make_inputs(plain, DTYPES[name][0], batch)
        for actual, expected in zip(
            gradients(compiled, inputs), gradients(function, inputs), strict=True
        ):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("name", CASES)
def test_fullgraph(name: str) -> None:
    assert_compiled_is_the_same(name, "aot_eager", (2,))


@pytest.mark.parametrize("name", CASES)
def test_second_size_becomes_dynamic_and_third_compiles_nothing(name: str) -> None:
    function, make_inputs = CASES[name]
    assert_compiled_is_the_same(name, "aot_eager", (2, 3))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with torch.compiler.set_stance("fail_on_recompile"):
        gradients(compiled, make_inputs(plain, DTYPES[name][0], 5))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_inductor(name: str) -> None:
    assert_compiled_is_the_same(name, "inductor", (2, 3))


def test_one_graph_from_pixels_to_loss() -> None:
    bands, boxes, index, shift, scale = gather_inputs(plain, torch.uint16, 2)
    weight, table = torch.randn(5, 48, requires_grad=True), torch.randn(4, 5)
    mask, head = torch.randn(5, requires_grad=True), torch.randn(48, 5, requires_grad=True)
    adjacency, groups = torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 2, 1, dtype=torch.bool)

    def step(weight: Tensor, mask: Tensor, head: Tensor) -> Tensor:
        patches, valid = kernels.gather_patches(
            bands, boxes, index, shift, scale, image_size=8, patch_size=4
        )
        tokens = kernels.embed_patches(patches, weight, None, table, index, None)
        query = tokens.view(2, 2, 1, 3, 1, 5)
        fused = kernels.tm_attention(query, query, query, adjacency, groups).view_as(tokens)
        sequence = kernels.assemble_tokens(fused, mask, table, torch.cat([index, index], -1))
        return kernels.norm_pix_loss(sequence[:, :, 3:] @ head.mT, patches, valid)

    inputs = (weight, mask, head)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for actual, expected in zip(gradients(compiled, inputs), gradients(step, inputs), strict=True):
        torch.testing.assert_close(actual, expected)


def test_bad_input_is_named_under_compile() -> None:
    compiled = torch.compile(kernels.norm_pix_loss, backend="aot_eager")
    with pytest.raises(ValueError, match="weight must have shape"):
        compiled(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(3))
