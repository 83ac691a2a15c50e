"""Every registered operator under torch.library.opcheck, every public function under compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.ops import MODULES, embed_patches
from seamo_fast import kernels
from tests.kernels.contract import gradient_of, name_of, there, tupled
from tests.kernels.layouts import Layout, laid_out, plain, reversed_in_memory

each_op = pytest.mark.parametrize("op", MODULES, ids=name_of)


def inputs_of(
    op: Any, layout: Layout = plain, dtype: torch.dtype | None = None, batch: int = 2
) -> Any:
    """Arguments that ask for their gradients; parameters stay float32 where they may."""
    x = op.make(dtype or dtypes_of(op)[0], **op.batch(batch))
    if op.FUNCTION is kernels.gather_patches:  # an order is part of a graph
        x = x._replace(order=(2, 0, 1), nodata=3.0, whole_pixel=True, dtype=torch.bfloat16)
    x = laid_out(x, layout)
    stored = op.dtypes(x)
    floats = {name: getattr(x, name).to(stored[name]) for name in op.GRADIENTS}
    return x._replace(**{name: value.requires_grad_() for name, value in floats.items()})


def dtypes_of(op: Any) -> tuple[torch.dtype, ...]:
    if op.FUNCTION is kernels.gather_patches:
        return torch.uint16, torch.int16, torch.float32
    return torch.float32, torch.bfloat16, torch.float64


def detached(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return inputs.detach()
    if hasattr(inputs, "_fields"):
        return type(inputs)(*map(detached, inputs))
    return type(inputs)(map(detached, inputs)) if isinstance(inputs, (list, tuple)) else inputs


def operator_calls(op: Any, x: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every operator of an operation with arguments: forward first, then backward."""
    name = name_of(op)
    forward = getattr(torch.ops.seamo, name, None) or getattr(torch.ops.seamo, f"_{name}")
    yield forward.default, tuple(x)
    if hasattr(x, "normalize"):
        yield forward.default, tuple(x._replace(normalize=False))
    if not op.GRADIENTS:
        return
    backward = getattr(torch.ops.seamo, f"_{name}_backward").default
    x = detached(x)
    outputs, grad = tupled(forward(*x)), reversed_in_memory(gradient_of(op, x))
    everything = [True] * len(op.GRADIENTS)
    yield backward, op.backward_arguments(x, outputs, grad, everything)
    if any(argument.name == "needed" for argument in backward._schema.arguments):
        some = [i % 2 == 0 for i in range(len(op.GRADIENTS))]
        yield backward, op.backward_arguments(x, outputs, grad, some)


@pytest.mark.parametrize(
    ("layout", "batch"),
    [(plain, 2), (reversed_in_memory, 2), (plain, 0)],
    ids=["plain", "permuted", "empty"],
)
@pytest.mark.parametrize(
    ("op", "dtype"),
    [(op, dtype) for op in MODULES for dtype in dtypes_of(op)],
    ids=lambda value: str(value) if isinstance(value, torch.dtype) else name_of(value),
)
def test_opcheck(op: Any, dtype: torch.dtype, layout: Layout, batch: int) -> None:
    for operator, arguments in operator_calls(op, inputs_of(op, layout, dtype, batch)):
        torch.library.opcheck(operator, arguments)
        if any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
            torch.library.opcheck(
                operator, detached(arguments), test_utils=("test_schema", "test_faketensor")
            )


def test_opcheck_without_bias_and_offset() -> None:
    x = embed_patches.make()._replace(bias=None, offset=None)
    torch.library.opcheck(torch.ops.seamo.embed_patches.default, tuple(x))


def test_every_operator_is_checked() -> None:
    checked = set()
    for op in MODULES:
        for operator, _ in operator_calls(op, inputs_of(op)):
            checked.add(operator.name())
    registered = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("seamo::")
    }
    assert checked == registered


def gradients(op: Any, function: Callable[..., Any], x: Any) -> list[Tensor]:
    """The outputs, and the gradients of the first where there are any."""
    outputs = tupled(function(**x._asdict()))
    wanted = [getattr(x, name) for name in there(op, x)]
    if not wanted:
        return list(outputs)
    return [*outputs, *torch.autograd.grad(outputs[0].square().sum(), wanted)]


def assert_compiled_is_the_same(op: Any, backend: str, sizes: tuple[int, ...]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(op.FUNCTION, fullgraph=True, backend=backend)
    for batch in sizes:
        x = inputs_of(op, batch=batch)
        found, expected = gradients(op, compiled, x), gradients(op, op.FUNCTION, x)
        torch.testing.assert_close(found, expected)


@each_op
def test_fullgraph(op: Any) -> None:
    assert_compiled_is_the_same(op, "aot_eager", (2,))


@each_op
def test_second_size_becomes_dynamic_and_third_compiles_nothing(op: Any) -> None:
    assert_compiled_is_the_same(op, "aot_eager", (2, 3))
    compiled = torch.compile(op.FUNCTION, fullgraph=True, backend="aot_eager")
    with torch.compiler.set_stance("fail_on_recompile"):
        gradients(op, compiled, inputs_of(op, batch=5))


@pytest.mark.slow
@each_op
def test_inductor(op: Any) -> None:
    assert_compiled_is_the_same(op, "inductor", (2, 3))


def test_one_graph_from_pixels_to_loss() -> None:
    bands = [
        torch.randint(0, 99, (2, 2, *grid)).to(torch.uint16) for grid in ((2, 8, 8), (1, 4, 4))
    ]
    boxes = torch.tensor([0.1, 0.2, -0.8, 0.7]).expand(2, 2, 4)
    index, shift, scale = torch.randint(0, 4, (2, 2, 3)), torch.rand(3), torch.rand(3)
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
    losses = compiled(*inputs), step(*inputs)
    actual, expected = ([loss, *torch.autograd.grad(loss, inputs)] for loss in losses)
    torch.testing.assert_close(actual, expected)


def test_bad_input_is_named_under_compile() -> None:
    compiled = torch.compile(kernels.norm_pix_loss, backend="aot_eager")
    with pytest.raises(ValueError, match="weight must have shape"):
        compiled(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(3))
