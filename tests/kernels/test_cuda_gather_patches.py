"""gather_patches in CUDA against grids sampled in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.gather_patches import cuda_impl, reference
from tests.kernels import cuda_host
from tests.kernels.budget import assert_within_budget, moved
from tests.kernels.cuda_host import cuda_device  # noqa: F401 (a fixture)
from tests.kernels.test_gather_patches import (
    native_case,
    oracle,
    random_band,
    small_case,
)

pytestmark = pytest.mark.usefixtures("poisoned", "cuda_device")

STORED = (torch.uint16, torch.int16, torch.uint8, torch.float16, torch.float32)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

cuda = cuda_host.Guarded(cuda_impl)


def whole_case(stored: torch.dtype, *, height: int = 16, channels: int = 10) -> dict[str, Any]:
    """A full box over a grid of the image's size: nothing is resampled."""
    return {
        "bands": [random_band((2, 1, channels, height, 24), stored)],
        "boxes": torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4).clone(),
        "index": torch.stack([torch.randperm(6)[:5] for _ in range(2)])[:, None],
        "shift": torch.zeros(channels),
        "scale": torch.ones(channels),
        "order": list(reversed(range(channels))),
        "image_size": (16, 24),
        "patch_size": 8,
        "nodata": None,
    }


def run(implementation: Any, case: dict[str, Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    reference.output_channels.cache_clear()  # guards know only what was made under them
    device = cuda_host.device() if implementation is cuda else "cpu"
    patches, valid = implementation.forward(*moved(list(case.values()), device), dtype)
    return patches.cpu(), valid.cpu()


def check(case: dict[str, Any], dtype: torch.dtype = torch.float32) -> Tensor:
    patches, valid = run(cuda, case, dtype)
    exact, exact_valid = oracle(**case)
    other, other_valid = run(reference, case, dtype)
    assert patches.dtype == dtype
    assert torch.equal(valid, other_valid)
    assert torch.equal(valid, exact_valid)
    bands = [x.double().nan_to_num(0, 0, 0).abs() for x in case["bands"] if x.numel()]
    stored = max((float(x.max()) for x in bands), default=1.0)
    results = ({"patches": x} for x in (patches, exact, other))
    terms = {"patches": max(1.0, stored * float(case["scale"].abs().max()))}
    assert_within_budget(*results, terms=terms)
    return valid


def lose(case: dict[str, Any], value: float, rate: float = 0.02) -> dict[str, Any]:
    for band in case["bands"]:
        places = torch.rand(band.shape) < rate
        numbers = band.view(torch.int16) if band.dtype == torch.uint16 else band
        numbers.masked_fill_(places, value)
    return case


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(stored: torch.dtype, dtype: torch.dtype) -> None:
    case = small_case(stored)
    case["scale"] /= 100  # float16 holds it
    check(case, dtype)


def test_three_native_grids() -> None:
    case = {"nodata": None, **native_case()}
    case["nodata"] = case.pop("nodata")  # last, as in the schema
    check(case)


@pytest.mark.parametrize(
    "sizes",
    [{"k": 1}, {"k": 12}, {"p": 1}, {"p": 7}, {"p": 8, "k": 12}, {"t": 1}, {"grid": 1}],
    ids=str,
)
def test_sizes(sizes: dict[str, int]) -> None:
    check(small_case(**sizes))


@pytest.mark.parametrize("stored", [torch.uint16, torch.int16, torch.uint8, torch.float32], ids=str)
def test_nodata(stored: torch.dtype) -> None:
    valid = check(lose({**small_case(stored, t=3, k=12), "nodata": 5.0}, 5))
    assert valid.any()
    assert not valid.all()


def test_what_is_not_finite_is_lost() -> None:
    case = small_case(torch.float16, k=12)
    for value in (torch.nan, torch.inf, -torch.inf):
        case["bands"][0][0, 0, 0, 2, 3] = value
        valid = check(case)
        assert valid.any()


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_full_box_gives_the_stored_values(stored: torch.dtype) -> None:
    case = whole_case(stored)
    patches, valid = run(cuda, case, torch.float32)
    assert valid.all()
    band = case["bands"][0].float().flip(2)[:, 0]  # in the order of the output
    blocks = band.unflatten(3, (3, 8)).unflatten(2, (2, 8)).permute(0, 2, 4, 1, 3, 5)
    expected = blocks.flatten(1, 2).flatten(2)  # [B, N, P]
    for b, number in enumerate(case["index"][:, 0]):
        assert torch.equal(patches[b, 0], expected[b, number])


@pytest.mark.parametrize("stored", [torch.uint16, torch.float16], ids=str)
def test_what_a_full_box_loses(stored: torch.dtype) -> None:
    valid = check(lose({**whole_case(stored), "nodata": 5.0}, 5, 0.001))
    assert valid.any()
    assert not valid.all()
    if stored.is_floating_point:
        check(lose(whole_case(stored), torch.nan, 0.001))


@pytest.mark.parametrize("side", [2, 3], ids=["height", "width"])
def test_flips(side: int) -> None:
    case = whole_case(torch.uint16)
    case["boxes"][0, 0, side] = -1
    check(case)


def test_one_resampled_axis() -> None:
    # a neighbour without weight may be lost
    valid = check(lose({**whole_case(torch.int16, height=17), "nodata": 5.0}, 5, 0.002))
    assert valid.any()
    assert not valid.all()


@pytest.mark.parametrize("corner", [(0, 4), (3, 8), (0, 0.5), (0.5, 0)], ids=str)
def test_boxes_of_the_size_of_the_image(corner: tuple[float, float]) -> None:
    case = whole_case(torch.uint16)
    case["bands"] = [random_band((2, 1, 10, 32, 32), torch.uint16)]
    case["boxes"] = torch.tensor([*corner, 16.0, 24.0]).expand(2, 1, 4) / 32
    check(case)


def test_layouts() -> None:
    case = small_case()
    # bands last in memory, a slice of a longer series
    case["bands"] = [
        torch.stack([x, x], 1).movedim(3, -1).contiguous().movedim(-1, 3)[:, 1]
        for x in case["bands"]
    ]
    for name in ("boxes", "index"):
        case[name] = torch.stack([case[name]] * 2, -1)[..., 0]
    check(case)


@pytest.mark.parametrize("columns", [slice(1, 25), slice(8, 32)], ids=["odd", "even"])
def test_full_box_over_a_slice(columns: slice) -> None:
    case = whole_case(torch.uint16)
    band = random_band((2, 3, 10, 16, 40), torch.uint16)
    case["bands"] = [band[:, 1:2, ..., columns]]
    check(case)


def test_index_in_int32_and_boxes_in_float64() -> None:
    case = small_case()
    case["index"], case["boxes"] = case["index"].int(), case["boxes"].double()
    case["shift"], case["scale"] = case["shift"].double(), case["scale"].half()
    check(case)


@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}], ids=str)
def test_empty_input(sizes: dict[str, int]) -> None:
    patches, valid = run(cuda, small_case(**sizes), torch.float32)
    assert patches.numel() == valid.numel() == 0
    assert patches.shape[-1] == 3 * 4 * 4


def test_a_grid_without_channels() -> None:
    case = small_case()
    case["bands"].insert(1, random_band((1, 2, 0, 5, 5), torch.uint16))
    check(case)


def test_runs_repeat_to_the_bit() -> None:
    case = small_case(torch.float16, k=12)
    case["bands"][0][0, 0, 0, 2, 3] = torch.nan
    first, *others = [run(cuda, case, torch.float16) for _ in cuda_host.orders()]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_float64_is_left_to_the_reference(dtype: torch.dtype) -> None:
    case = small_case(torch.float64 if dtype == torch.float32 else torch.float32)
    assert cuda_impl.forward(*moved(list(case.values()), cuda_host.device()), dtype) is None


@cuda_host.checked
def test_memory_accesses() -> None:
    check(small_case(k=12))
    check(lose({**whole_case(torch.uint16), "nodata": 5.0}, 5, 0.001), torch.bfloat16)
    check(small_case(torch.uint8, p=3))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**31),
    stored=st.sampled_from(STORED),
    sizes=st.fixed_dictionaries(
        {
            "t": st.integers(1, 2),
            "k": st.integers(1, 12),
            "p": st.integers(1, 9),
            "grid": st.integers(1, 30),
        }
    ),
)
def test_any_shape(seed: int, stored: torch.dtype, sizes: dict[str, int]) -> None:
    torch.manual_seed(seed)
    check(small_case(stored, **sizes))
