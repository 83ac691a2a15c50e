"""residual_attention and residual_mlp against the layers that they stand in for, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seamo_fast import kernels
from seamo_fast.kernels import _backends, _native, _registry
from seamo_fast.model.layers import Block, Mlp
from tests.kernels.backends import forget
from tests.kernels.budget import assert_within_budget

_module: Any = _native.load()
if isinstance(_module, str):
    pytest.skip(f"the C++ kernels: {_module}", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("poisoned_memory")


class Case(NamedTuple):
    """A block and what it takes."""

    block: Block
    x: Tensor  # [B, L, D]
    keep: Tensor | None
    skip: int
    grad: Tensor  # [B, L - skip, D]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def case(
    batch: int = 3,
    length: int = 12,
    width: int = 32,
    heads: int = 4,
    groups: int | None = None,
    skip: int = 0,
    ratio: float = 4.0,
    seed: int = 0,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    block = Block(width, heads, ratio)
    for parameter in block.parameters():
        parameter.data = normal(*parameter.shape) / parameter.shape[-1] ** 0.5
    keep = None
    if groups is not None:
        keep = torch.rand(batch, groups, generator=generator) < 0.6
        keep |= ~keep.any(1, keepdim=True)
    return Case(
        block, 2 * normal(batch, length, width) + 1, keep, skip, normal(batch, length - skip, width)
    )


def seen(*_: Any) -> None:
    """A hook: a layer that has one has to run itself."""


def run(
    c: Case, dtype: torch.dtype = torch.float32, layers: bool = False, wanted: str = ""
) -> dict[str, Tensor]:
    """The result and all gradients of parameters whose name contains `wanted`, and of x."""
    block = Block(c.x.shape[2], c.block.attn.heads, 1.0)
    block.mlp = Mlp(c.x.shape[2], c.block.mlp.fc1.out_features)
    block.load_state_dict(c.block.state_dict())
    block.to(dtype)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(wanted in name)
    if layers:
        block.attn.qkv.register_forward_hook(seen)
        block.mlp.fc1.register_forward_hook(seen)
    x = c.x.detach().to(dtype).requires_grad_()
    out = block(x, c.keep, c.skip)
    out.backward(c.grad.to(dtype))
    assert x.grad is not None
    found = {"out": out.detach(), "x": x.grad}
    found |= {
        name: parameter.grad
        for name, parameter in block.named_parameters()
        if parameter.grad is not None
    }
    return {name: value.contiguous() for name, value in found.items()}


def mlp_kernel(x: Tensor, block: Block) -> Tensor | None:
    """What the C++ function of residual_mlp gives; None where it leaves that to the layers."""
    norm, mlp = block.norm2, block.mlp
    found: Tensor | None = _registry.call_native(
        *("residual_mlp", x, norm.weight, norm.bias, mlp.fc1.weight, mlp.fc1.bias),
        *(mlp.fc2.weight, mlp.fc2.bias, norm.eps),
    )
    return found


def attention_kernel(x: Tensor, block: Block) -> Tensor | None:
    """The same of residual_attention."""
    norm, attn = block.norm1, block.attn
    found: Tensor | None = _registry.call_native(
        *("residual_attention", x, norm.weight, norm.bias, attn.qkv.weight, attn.qkv.bias),
        *(attn.proj.weight, attn.proj.bias, None, attn.heads, 0, norm.eps),
    )
    return found


def assert_as_good_as_layers(c: Case) -> None:
    exact, layers = run(c, torch.float64, layers=True), run(c, layers=True)
    # gradients pass through one another: what cancels in one has the size of others
    largest = 4 * max(float(value.abs().max()) for value in exact.values())
    assert_within_budget(run(c), exact, layers, terms=dict.fromkeys(exact, largest))


SIZES: dict[str, dict[str, Any]] = {
    "usual": {},
    "one token": {"length": 1},
    "one value a head": {"width": 4},
    "odd": {"batch": 2, "length": 33, "width": 51, "heads": 3},
    "groups": {"batch": 5, "length": 24, "groups": 3},
    "one group": {"groups": 1},
    "as many groups as tokens": {"length": 5, "groups": 5},
    "skipping": {"length": 50, "skip": 13},
    "skipping all but one": {"length": 9, "skip": 8},
    "narrow": {"ratio": 0.25},
    "wide": {"batch": 1, "length": 70, "width": 128, "heads": 2},
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_they_equal_the_layers(instruction_set: None, sizes: dict[str, Any]) -> None:
    assert_as_good_as_layers(case(**sizes))


@pytest.mark.parametrize("skip", [0, 5])
def test_rows_pass_in_several_blocks(one_thread: None, skip: int) -> None:
    assert_as_good_as_layers(case(batch=113, length=23, width=16, skip=skip))


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(3, 19),  # a norm of one or two values magnifies every rounding
    st.integers(0, 99),
)
def test_any_size(batch: int, groups: int, each: int, heads: int, per_head: int, seed: int) -> None:
    assert_as_good_as_layers(case(batch, groups * each, heads * per_head, heads, groups, seed=seed))


def test_kernels_run_unless_a_layer_has_to_be_seen() -> None:
    """The comparisons above are of two things."""
    c = case()
    assert mlp_kernel(c.x, c.block) is not None
    assert attention_kernel(c.x, c.block) is not None
    fast = c.block(c.x)
    c.block.mlp.fc1.register_forward_hook(seen)
    c.block.attn.qkv.register_forward_hook(seen)
    layers = c.block(c.x)
    torch.testing.assert_close(fast, layers)
    assert not torch.equal(fast, layers)


@pytest.mark.parametrize("wanted", ["norm1", "attn.qkv.weight", "proj.bias", "fc1.bias", "fc2"])
def test_frozen_parameters_have_no_gradient_and_change_nothing(wanted: str) -> None:
    everything, some = run(case()), run(case(), wanted=wanted)
    assert set(some) == {"out", "x"} | {name for name in everything if wanted in name}
    for name, value in some.items():
        assert torch.equal(value, everything[name]), name


def test_results_repeat() -> None:
    first, again = run(case(batch=40, length=31)), run(case(batch=40, length=31))
    for name, value in first.items():
        assert torch.equal(value, again[name]), name


def test_without_gradients_the_result_is_the_same() -> None:
    c = case(groups=3)
    with torch.no_grad():
        inferred = c.block(c.x, c.keep)
    assert torch.equal(inferred, c.block(c.x, c.keep))
    assert not inferred.requires_grad


def test_a_graph_can_be_walked_twice() -> None:
    c = case()
    x = c.x.clone().requires_grad_()
    out = c.block(x)
    first = torch.autograd.grad(out, x, c.grad, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out, x, c.grad)[0])


def test_second_derivatives_are_refused() -> None:
    c = case()
    x = c.x.clone().requires_grad_()
    slope = torch.autograd.grad(c.block(x).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="_residual_attention_backward has no derivative"):
        slope.sum().backward()


def test_no_token_is_skipped_unless_asked() -> None:
    c = case()
    found = kernels.residual_attention(c.x, c.block.norm1, c.block.attn)
    asked = kernels.residual_attention(c.x, c.block.norm1, c.block.attn, None, skip=0)
    assert found.shape == c.x.shape
    assert torch.equal(found, asked)
    assert kernels.residual_attention(c.x, c.block.norm1, c.block.attn, None, 5).shape[1] == 7


def test_strides_do_not_matter() -> None:
    c = case()
    turned = c.x.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(c.block(turned), c.block(c.x))
    for layer in (c.block.attn.qkv, c.block.mlp.fc1, c.block.mlp.fc2):
        layer.weight.data = layer.weight.data.t().contiguous().t()
    torch.testing.assert_close(c.block(c.x), case().block(c.x))


def test_what_is_not_kept_is_not_used() -> None:
    c = case(batch=2, length=12, groups=3)
    keep = torch.tensor([[True, False, True], [True, True, True]])
    spoiled = c.x.clone()
    spoiled[0, 4:8] = torch.nan
    rows = torch.ones(2, 12, dtype=torch.bool)
    rows[0, 4:8] = False
    assert torch.equal(c.block(spoiled, keep)[rows], c.block(c.x, keep)[rows])


def test_extreme_values_of_the_gelu() -> None:
    """Rows of a hidden layer from -60 to 60, which its bias gives."""
    mlp, norm = Mlp(4, 240), nn.LayerNorm(4)
    for parameter in (*mlp.parameters(), *norm.parameters()):
        parameter.data.zero_()
    mlp.fc1.bias.data = torch.linspace(-60, 60, 240)
    mlp.fc2.weight.data = torch.eye(4, 240).roll(118, 1)
    mlp.fc2.weight.data[0] = 1
    x = torch.randn(3, 4)
    with torch.no_grad():
        double = kernels.residual_mlp(x.double(), norm.double(), mlp.double())
        single = kernels.residual_mlp(x, norm.float(), mlp.float())
    assert float((single - double).abs().max()) < 1e-3  # of 3600
    assert float((single - double)[:, 1:].abs().max()) < 3e-7


@pytest.mark.parametrize(
    "unfit",
    [
        lambda c: (c.block.double(), c.x.double()),
        lambda c: (c.block.bfloat16(), c.x.bfloat16()),
        lambda c: (c.block, c.x[:0]),
    ],
    ids=["float64", "bfloat16", "empty"],
)
def test_layers_run_where_the_kernels_do_not(unfit: Callable[[Case], tuple[Block, Tensor]]) -> None:
    block, x = unfit(case())
    assert mlp_kernel(x, block) is None
    assert attention_kernel(x, block) is None
    assert torch.equal(kernels.residual_mlp(x, block.norm2, block.mlp), layers_of_mlp(x, block))
    out = block(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype


def test_autocast_gets_layers() -> None:
    c = case()
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp_kernel(c.x, c.block) is None
        assert attention_kernel(c.x, c.block) is None
        out = kernels.residual_mlp(c.x, c.block.norm2, c.block.mlp)
        assert torch.equal(out, layers_of_mlp(c.x, c.block))


def test_a_layer_without_bias_runs_itself() -> None:
    c = case()
    c.block.mlp.fc1 = nn.Linear(32, 128, bias=False)
    out = c.block(c.x)
    assert not out.isnan().any()


def layers_of_mlp(x: Tensor, block: Block) -> Tensor:
    return x + block.mlp(block.norm2(x))


class Adapter(nn.Module):
    """Adds to what a layer gives, as low-rank adapters do."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + 1


def test_a_layer_that_was_replaced_is_used() -> None:
    c = case()
    before = c.block(c.x)
    for owner, name in ((c.block.attn, "proj"), (c.block.mlp, "fc2")):
        layer = getattr(owner, name)
        setattr(owner, name, Adapter(layer))
        assert not torch.allclose(c.block(c.x), before)
        setattr(owner, name, layer)
    assert torch.equal(c.block(c.x), before)


@pytest.mark.parametrize("name", ["norm1", "attn", "attn.qkv", "mlp", "mlp.fc2"])
def test_hooks_are_called(name: str) -> None:
    c = case()
    calls = []
    c.block.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))
    c.block(c.x)
    assert calls == [name]


class Doubled(Mlp):
    """A layer of another class."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_branch_that_was_replaced_is_used() -> None:
    """The new one needs nothing of what the old one had."""
    c = case()
    c.block.mlp = nn.Identity()
    expected = c.block(c.x)
    c.block.mlp = Doubled(32, 128)
    for parameter in c.block.mlp.parameters():
        parameter.data.zero_()
    attended = c.block(c.x)
    torch.testing.assert_close(expected, attended + c.block.norm2(attended))
    c.block.mlp.fc2.bias.data.fill_(1)
    torch.testing.assert_close(c.block(c.x), attended + 2)


def test_hooks_of_all_modules_are_called() -> None:
    c = case()
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda *x: calls.append(type(x[0])))
    try:
        c.block(c.x)
    finally:
        handle.remove()
    assert nn.LayerNorm in calls
    assert Mlp in calls


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_transforms_and_compilers_see_layers() -> None:
    """A shift of a whole row passes by the norm."""
    c = case()
    expected = c.block(c.x)
    mapped = torch.func.vmap(c.block)(c.x[:, None])[:, 0]
    torch.testing.assert_close(mapped, expected)
    _, along = torch.func.jvp(
        lambda x: kernels.residual_mlp(x, c.block.norm2, c.block.mlp),
        (c.x,),
        (torch.ones_like(c.x),),
    )
    torch.testing.assert_close(along, torch.ones_like(c.x), atol=1e-4, rtol=0)
    compiled = torch.compile(c.block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(c.x), expected)


def test_reference_kernels_are_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _backends.obstacle("cpu") is None
    c = case()
    monkeypatch.setenv(_registry.VARIABLE, "reference")
    forget()
    try:
        assert mlp_kernel(c.x, c.block) is None
        out = kernels.residual_mlp(c.x, c.block.norm2, c.block.mlp)
        assert torch.equal(out, layers_of_mlp(c.x, c.block))
    finally:
        monkeypatch.undo()
        forget()
