"""Eager mode with gradients, as autograd, its transforms and its modes may use an operation."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from seamo_fast import kernels
from seamo_fast.kernels import _backends, _registry, _torch_private
from tests.kernels.backends import forget

Case = tuple[Callable[..., Tensor], list[Tensor]]

B, T, M, K, N, H, D, P = 2, 2, 2, 3, 5, 2, 8, 6
INDEX = torch.arange(N).expand(B, T, N)
ADJACENCY, VALID = torch.ones(T * M, T * M) > 0, torch.ones(B, T, M) > 0


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return kernels.tm_attention(q, k, v, ADJACENCY, VALID)


def assemble(visible: Tensor, mask: Tensor, table: Tensor) -> Tensor:
    return kernels.assemble_tokens(visible, mask, table, INDEX)


def embed(weight: Tensor, bias: Tensor, table: Tensor, offset: Tensor) -> Tensor:
    patches = torch.linspace(-1, 1, B * T * K * P).view(B, T, K, P)
    return kernels.embed_patches(patches, weight, bias, table, INDEX[..., :K], offset)


def loss(pred: Tensor) -> Tensor:
    target = torch.linspace(-1, 2, pred.numel()).view(pred.shape).square()
    return kernels.norm_pix_loss(pred, target, torch.ones(pred.shape[:-1]))


SHAPES: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "tm_attention": (attend, [(B, T, M, K, H, D)] * 3),
    "assemble_tokens": (assemble, [(B, T, K, D), (D,), (N, D)]),
    "embed_patches": (embed, [(D, P), (D,), (N, D), (B, T, D)]),
    "norm_pix_loss": (loss, [(B, T, K, P)]),
}


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    reason = _backends.obstacle(request.param)
    if reason is not None:
        pytest.skip(f"the {request.param} kernels: {reason}")
    monkeypatch.setenv(_registry.VARIABLE, request.param)
    forget()
    yield request.param
    monkeypatch.undo()
    forget()


@pytest.fixture(params=SHAPES)
def case(request: pytest.FixtureRequest, backend: str) -> Case:
    function, shapes = SHAPES[request.param]
    torch.manual_seed(0)
    return function, [torch.randn(shape).requires_grad_() for shape in shapes]


def test_a_graph_that_is_kept_gives_the_same_gradients_again(case: Case) -> None:
    function, inputs = case
    out = function(*inputs).square().sum() if function is not loss else function(*inputs)
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    kept = [grad.clone() for grad in first]
    for grad in first:
        grad.data.zero_()  # as an optimizer may do
    second = torch.autograd.grad(out, inputs)
    for a, b in zip(second, kept, strict=True):
        assert torch.equal(a, b)


def test_batched_gradients_are_those_of_a_loop(case: Case) -> None:
    function, inputs = case
    out = function(*inputs)
    grads = torch.randn(3, *out.shape)
    batched = torch.autograd.grad(out, inputs, grads, retain_graph=True, is_grads_batched=True)
    for number, grad in enumerate(grads):
        single = torch.autograd.grad(out, inputs, grad, retain_graph=True)
        for a, b in zip(batched, single, strict=True):
            torch.testing.assert_close(a[number], b)


def test_only_the_wanted_gradients_are_found(case: Case) -> None:
    function, inputs = case
    everything = torch.autograd.grad(function(*inputs).sum(), inputs)
    for number, wanted in enumerate(inputs):
        alone = [x if x is wanted else x.detach() for x in inputs]
        (grad,) = torch.autograd.grad(function(*alone).sum(), [wanted])
        assert torch.equal(grad, everything[number])


def test_second_derivatives_raise(case: Case) -> None:
    function, inputs = case
    grads = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match=r"seamo::_.*_backward has no derivative"):
        sum(grad.sum() for grad in grads).backward()


def test_tangents_raise(case: Case) -> None:
    function, inputs = case
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(inputs[0].detach(), torch.ones_like(inputs[0]))
        with pytest.raises(NotImplementedError, match="has no forward-mode derivative"):
            function(dual, *inputs[1:])


def test_modes_see_the_operator(case: Case) -> None:
    function, inputs = case
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    with Watch():
        function(*inputs)
    assert any(name.startswith("seamo.") for name in seen)


def test_half_precision_gradients_are_rounded_once(backend: str) -> None:
    torch.manual_seed(0)
    pred = torch.randn(64, 192, dtype=torch.bfloat16, requires_grad=True)
    target, weight = torch.randn(64, 192), torch.rand(64)
    (grad,) = torch.autograd.grad(kernels.norm_pix_loss(pred, target, weight) * 0.3, pred)
    exact = pred.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(kernels.norm_pix_loss(exact, target, weight) * 0.3, exact)
    # rounded twice, a quarter of them would differ
    assert (grad != expected.to(grad.dtype)).float().mean() < 0.01


@pytest.mark.parametrize("count", [1, 2, 3])
def test_inference_mode_and_threads(case: Case, count: int) -> None:
    function, inputs = case
    expected = function(*inputs).detach()
    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with torch.inference_mode():
            assert torch.equal(function(*inputs), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(params=_torch_private.NAMES)
def another_torch(request: pytest.FixtureRequest) -> Iterator[str]:
    """What is known of a torch that lacks one of the private names."""
    owner, _, attribute = request.param.rpartition(".")
    owner = functools.reduce(getattr, owner.split(".")[1:], torch)
    value = getattr(owner, attribute)
    delattr(owner, attribute)
    try:
        importlib.reload(_torch_private)
    finally:
        setattr(owner, attribute, value)
    yield request.param
    importlib.reload(_torch_private)


def test_a_torch_without_a_private_name_has_the_same_results(
    another_torch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (another_torch,) == _torch_private.MISSING
    monkeypatch.setattr(_registry, "_native_function", lambda op: pytest.fail("the shortcut"))
    torch.manual_seed(0)
    for function, shapes in SHAPES.values():
        inputs = [torch.randn(shape).requires_grad_() for shape in shapes]
        expected = [x.detach().double().requires_grad_() for x in inputs]
        torch.autograd.backward(function(*inputs).square().sum())
        torch.autograd.backward(function(*expected).square().sum())
        for a, b in zip(inputs, expected, strict=True):
            torch.testing.assert_close(a.grad, b.grad.float())


def test_seamo_fast_can_be_imported_without_any_private_name() -> None:
    program = (
        "import functools, sys, torch\n"
        "names = sys.argv[1:]\n"
        "for name in names:\n"
        "    owner, _, attribute = name.rpartition('.')\n"
        "    delattr(functools.reduce(getattr, owner.split('.')[1:], torch), attribute)\n"
        "import seamo_fast\n"
        "from seamo_fast.kernels import _torch_private\n"
        "assert _torch_private.MISSING == tuple(names), _torch_private.MISSING\n"
    )
    subprocess.run([sys.executable, "-c", program, *_torch_private.NAMES], check=True)
