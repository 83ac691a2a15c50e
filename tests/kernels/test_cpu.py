"""The C++ kernels as such: threads, instruction sets, what they leave, a whole training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.ops import MODULES, assemble_tokens, embed_patches, gather_patches, norm_pix_loss
from seamo_fast.kernels import _registry
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.tiles import TileBatch
from tests.factories import S1, S2, make_batch, make_views
from tests.kernels.backends import forget
from tests.kernels.contract import (
    Backend,
    Subject,
    assert_equal,
    gradient_of,
    name_of,
    results_of,
    there,
)

CONFIG = ModelConfig(
    width=96, depth=2, heads=2, image_size=64, decoder_width=64, decoder_depth=2, decoder_heads=2
)
MISSING = [(0, 0, 0), (1, 1, 0), (1, 1, 1)]

pytestmark = pytest.mark.usefixtures("poisoned")

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(params=MODULES, ids=name_of)
def subject(request: pytest.FixtureRequest, cpu: Backend) -> Subject:
    return Subject(request.param, cpu)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@each_dtype
def test_every_instruction_set(instruction_set: None, subject: Subject, dtype: torch.dtype) -> None:
    for sizes in subject.op.MANY:
        subject.check(subject.make(dtype=dtype, **sizes))


@each_dtype
def test_any_number_of_threads_gives_the_same_bits(
    threads: Callable[[int], None], subject: Subject, dtype: torch.dtype
) -> None:
    for sizes in subject.op.MANY:
        x = subject.make(dtype=dtype, **sizes)
        grad = gradient_of(subject.op, x)
        expected = subject.run(x, grad)
        for count in (1, 2, 2, 3, 5, 16):
            threads(count)
            assert_equal(subject.run(x, grad), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_other_dtypes_are_left_to_the_reference(subject: Subject, dtype: torch.dtype) -> None:
    x = subject.make(dtype=dtype)
    grad = gradient_of(subject.op, x)
    expected = results_of(subject.op, subject.reference, x, grad)
    if subject.takes(x):  # gather_patches computes in float32 and rounds
        assert_equal(subject.run(x), expected)
    else:
        subject.assert_left(x, grad)
    for name in there(subject.op, x):  # autograd rounds to the dtypes of the inputs
        expected[name] = expected[name].to(getattr(x, name).dtype)
    for name, value in subject.public(x, grad).items():
        assert torch.equal(value, expected[name]), name


def worse_than(x: Any) -> Iterator[Any]:
    """Versions of an argument that do not fit the others."""
    if isinstance(x, Tensor):
        yield x[:1] if x.dim() > 2 else x[..., 1:]
        yield x[None]
        yield x.to("meta")
        yield x.to(torch.complex64)
    elif isinstance(x, (list, tuple)) and len(x) and isinstance(x[0], Tensor):
        yield from ([worse, *x[1:]] for worse in worse_than(x[0]))
        yield x[1:]
    elif isinstance(x, (list, tuple)):
        yield x[1:]
        yield [-1, *x[1:]]


def test_what_the_checks_refuse_is_not_read(subject: Subject) -> None:
    x = subject.make(**subject.op.MANY[0])
    assert subject.module.forward(*x) is not None
    for name, value in x._asdict().items():
        for worse in worse_than(value):
            assert subject.module.forward(*x._replace(**{name: worse})) is None, (name, worse)


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (norm_pix_loss, "target"),
        (norm_pix_loss, "weight"),
        (embed_patches, "patches"),
        (gather_patches, "bands"),
        (gather_patches, "boxes"),
        (gather_patches, "shift"),
    ],
    ids=lambda value: value if isinstance(value, str) else name_of(value),
)
def test_what_has_no_gradient_may_not_ask_for_one(cpu: Backend, op: Any, name: str) -> None:
    x = op.make()
    asking = getattr(x, name)
    if isinstance(asking, list):
        asking = [asking[0].float().requires_grad_(), *asking[1:]]
    else:
        asking.requires_grad_()
    assert Subject(op, cpu).module.forward(*x._replace(**{name: asking})) is None


@pytest.mark.parametrize("op", [assemble_tokens, embed_patches, gather_patches], ids=name_of)
@pytest.mark.parametrize("wrong", [-1, 1000])
def test_patch_numbers_are_checked(cpu: Backend, op: Any, wrong: int) -> None:
    x = op.make()
    x.index[..., -1] = wrong
    with pytest.raises(IndexError, match=f"index must hold patch numbers in .*, but got {wrong}"):
        Subject(op, cpu).module.forward(*x)


def test_negated_views_are_not_read(cpu: Backend) -> None:
    x = norm_pix_loss.make(lead=(3,), p=4)
    pred = torch.randn(3, 4, dtype=torch.complex64).conj().imag
    assert pred.is_neg()
    assert Subject(norm_pix_loss, cpu).module.forward(*x._replace(pred=pred)) is None


def step_of(model: SeaMo, batch: TileBatch) -> dict[str, Tensor]:
    model.zero_grad()
    losses = model(batch, make_views(batch, CONFIG))
    losses.total.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": losses.total.detach(), **grads}


def distances(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    return {
        name: float((found[name].double() - value).norm() / (value.norm() + 1e-12))
        for name, value in exact.items()
    }


@pytest.mark.parametrize("missing", [[], MISSING], ids=["complete", "missing groups"])
@pytest.mark.parametrize("fusion", ["tm", "cascade"])
def test_a_whole_step_is_as_exact_as_with_the_reference(
    cpu: Backend, monkeypatch: pytest.MonkeyPatch, fusion: str, missing: list[tuple[int, int, int]]
) -> None:
    batch = make_batch([S2, S1], seasons=3, size=48, missing=missing)
    torch.manual_seed(0)
    model = SeaMo(ModelConfig(**{**vars(CONFIG), "fusion": fusion}), [S2, S1])
    found = {}
    try:
        for backend in ("reference", "cpu"):
            monkeypatch.setenv(_registry.VARIABLE, backend)
            forget()
            found[backend] = {name: x.clone() for name, x in step_of(model, batch).items()}
        exact = step_of(model.double(), batch)  # the kernels leave float64 to the reference
    finally:
        monkeypatch.undo()
        forget()
    assert found["cpu"].keys() == exact.keys()
    theirs, ours = (distances(found[backend], exact) for backend in ("reference", "cpu"))
    worst = max(theirs.values())
    for name, distance in ours.items():
        assert distance <= 2 * theirs[name] + 0.1 * worst + 1e-6, name
