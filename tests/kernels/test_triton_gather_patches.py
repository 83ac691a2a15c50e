"""gather_patches in Triton against grids sampled in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seamo_fast.kernels.gather_patches import reference
from tests.kernels.budget import assert_within_budget, moved
from tests.kernels.test_gather_patches import (
    native_case,
    oracle,
    random_band,
    small_case,
)

triton_impl = pytest.importorskip("seamo_fast.kernels.gather_patches.triton_impl")

pytestmark = pytest.mark.usefixtures("poisoned", "triton_device")

STORED = (torch.uint16, torch.int16, torch.uint8, torch.float16, torch.float32)


def run(
    implementation: Any, case: dict[str, Any], dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor]:
    patches, valid = implementation.forward(*moved(list(case.values()), device), dtype)
    return patches.cpu(), valid.cpu()


def check(case: dict[str, Any], device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    case = {"nodata": None, **case}
    case["nodata"] = case.pop("nodata")  # last, as in the schema
    patches, valid = run(triton_impl, case, dtype, device)
    exact, exact_valid = oracle(**case)
    other, other_valid = run(reference, case, dtype, "cpu")
    assert patches.dtype == dtype
    assert torch.equal(valid, other_valid)
    assert torch.equal(valid, exact_valid)
    assert_within_budget({"patches": patches}, {"patches": exact}, {"patches": other})
    return valid


@pytest.mark.parametrize("stored", STORED, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_dtypes(triton_device: str, stored: torch.dtype, dtype: torch.dtype) -> None:
    case = small_case(stored)
    case["scale"] /= 100  # float16 holds it
    check(case, triton_device, dtype)


def test_three_native_grids(triton_device: str) -> None:
    check(native_case(), triton_device)


@pytest.mark.parametrize(
    "sizes", [{"k": 1}, {"k": 12}, {"p": 1}, {"p": 7}, {"t": 1}, {"grid": 1}], ids=str
)
def test_sizes(triton_device: str, sizes: dict[str, int]) -> None:
    check(small_case(**sizes), triton_device)


@pytest.mark.parametrize("stored", [torch.uint16, torch.int16, torch.float32], ids=str)
def test_nodata(triton_device: str, stored: torch.dtype) -> None:
    case = {**small_case(stored, t=3, k=12), "nodata": 5.0}
    for band in case["bands"]:
        places = torch.rand(band.shape) < 0.02
        numbers = band.view(torch.int16) if stored == torch.uint16 else band
        numbers.masked_fill_(places, 5)
    valid = check(case, triton_device)
    assert valid.any()
    assert not valid.all()


def test_what_is_not_finite_is_lost(triton_device: str) -> None:
    case = small_case(torch.float16, k=12)
    for value in (torch.nan, torch.inf, -torch.inf):
        case["bands"][0][0, 0, 0, 2, 3] = value
        valid = check(case, triton_device)
        assert valid.any()


def test_full_box_gives_the_stored_values(triton_device: str) -> None:
    case = {
        "bands": [random_band((1, 1, 2, 12, 16), torch.uint16)],
        "boxes": torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]),
        "index": torch.arange(12)[None, None],
        "shift": torch.zeros(2),
        "scale": torch.ones(2),
        "order": [0, 1],
        "image_size": (12, 16),
        "patch_size": 4,
        "nodata": None,
    }
    patches, _ = run(triton_impl, case, torch.float32, triton_device)
    image = patches.view(3, 4, 2, 4, 4).permute(2, 0, 3, 1, 4).reshape(2, 12, 16)
    assert torch.equal(image, case["bands"][0][0, 0].float())


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_layouts(triton_device: str, stored: torch.dtype) -> None:
    case = small_case(stored)
    # bands last in memory, a slice of a longer series
    case["bands"] = [
        torch.stack([x, x], 1).movedim(3, -1).contiguous().movedim(-1, 3)[:, 1]
        for x in case["bands"]
    ]
    for name in ("boxes", "index"):
        case[name] = torch.stack([case[name]] * 2, -1)[..., 0]
    check(case, triton_device)


def test_index_in_int32_and_boxes_in_float64(triton_device: str) -> None:
    case = small_case()
    case["index"], case["boxes"] = case["index"].int(), case["boxes"].double()
    case["shift"], case["scale"] = case["shift"].double(), case["scale"].half()
    check(case, triton_device)


@pytest.mark.parametrize("sizes", [{"t": 0}, {"k": 0}], ids=str)
def test_empty_input(triton_device: str, sizes: dict[str, int]) -> None:
    patches, valid = run(triton_impl, small_case(**sizes), torch.float32, triton_device)
    assert patches.numel() == valid.numel() == 0
    assert patches.shape[-1] == 3 * 4 * 4


def test_every_configuration(triton_device: str, configuration: Callable[..., None]) -> None:
    case = small_case(torch.float32, t=1, k=12, p=8)
    case["bands"][0][0, 0, 0, 2:5, 2:5] = torch.nan
    expected = run(triton_impl, case, torch.float32, triton_device)
    for number in range(1, len(triton_impl._CONFIGS)):
        configuration(triton_impl._tuned, number)
        actual = run(triton_impl, case, torch.float32, triton_device)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("stored", STORED, ids=str)
def test_runs_repeat_to_the_bit(triton_device: str, stored: torch.dtype) -> None:
    case = small_case(stored, k=12)
    first, second = (run(triton_impl, case, torch.float32, triton_device) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_float64_is_left_to_the_reference(triton_device: str, dtype: torch.dtype) -> None:
    case = small_case(torch.float64 if dtype == torch.float32 else torch.float32)
    assert triton_impl.forward(*moved(list(case.values()), triton_device), dtype) is None


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
def test_any_shape(
    triton_device: str, seed: int, stored: torch.dtype, sizes: dict[str, int]
) -> None:
    torch.manual_seed(seed)
    check(small_case(stored, **sizes), triton_device)
