"""gather_patches against F.grid_sample and F.interpolate in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.kernels import gather_patches

pytestmark = pytest.mark.usefixtures("poisoned", "backend")

DTYPES = (
    torch.uint16,
    torch.int16,
    torch.uint8,
    torch.float16,
    torch.float32,
    torch.float64,
)


def random_band(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, tuple(shape), dtype=dtype)
    if dtype == torch.uint16:
        return torch.randint(0, 65536, tuple(shape)).to(dtype)
    if dtype == torch.int16:
        return torch.randint(-32768, 32768, tuple(shape), dtype=dtype)
    return torch.randn(tuple(shape), dtype=torch.float64).mul(20).to(dtype)


def random_boxes(batch: int, seasons: int) -> Tensor:
    extent = torch.rand(batch, seasons, 2) * 0.5 + 0.5
    start = torch.rand(batch, seasons, 2) * (1 - extent)
    flip = torch.rand(batch, seasons, 2) < 0.5
    return torch.cat([start, torch.where(flip, -extent, extent)], dim=-1)


def random_index(batch: int, seasons: int, wanted: int, patches: int) -> Tensor:
    return torch.rand(batch, seasons, patches).argsort(-1)[..., :wanted]


def sampled_image(band: Tensor, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Region of a float64 grid [B, T, C, H, W] as an image [B, T, C, *image_size]."""
    batch, seasons = boxes.shape[:2]
    image = torch.empty(batch, seasons, band.shape[2], *image_size, dtype=torch.float64)
    for b in range(batch):
        for t in range(seasons):
            top, left, tall, wide = boxes[b, t].double().tolist()
            y = top + (torch.arange(image_size[0]) + 0.5).double() / image_size[0] * abs(tall)
            x = left + (torch.arange(image_size[1]) + 0.5).double() / image_size[1] * abs(wide)
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) * 2 - 1
            region = F.grid_sample(
                band[b, t][None], grid[None], padding_mode="border", align_corners=False
            )[0]
            flipped = [axis for axis, extent in ((1, tall), (2, wide)) if extent < 0]
            image[b, t] = region.flip(flipped)
    return image


def patchified(image: Tensor, index: Tensor, p: int) -> Tensor:
    """Wanted patches of images [B, T, C, S, S'], each as a row (C, p, p)."""
    columns = image.shape[-1] // p
    rows = []
    for b in range(index.shape[0]):
        for t in range(index.shape[1]):
            for number in index[b, t].tolist():
                y, x = number // columns * p, number % columns * p
                rows.append(image[b, t, :, y : y + p, x : x + p].reshape(-1))
    return torch.stack(rows).reshape(*index.shape, -1)


def oracle(
    bands: Sequence[Tensor],
    boxes: Tensor,
    index: Tensor,
    shift: Tensor,
    scale: Tensor,
    *,
    image_size: tuple[int, int],
    patch_size: int,
    order: Sequence[int] | None = None,
    nodata: float | None = None,
) -> tuple[Tensor, Tensor]:
    images, holes = [], []
    for band in bands:
        stored = band.double()
        lost = ~stored.isfinite()
        if nodata is not None:
            lost |= stored == nodata
        images.append(sampled_image(stored.masked_fill(lost, 0), boxes, image_size))
        holes.append(sampled_image(lost.double(), boxes, image_size))
    image, hole = torch.cat(images, 2), torch.cat(holes, 2) > 0
    if order is not None:
        image, hole = image[:, :, list(order)], hole[:, :, list(order)]
    image = (image - shift.double()[:, None, None]) * scale.double()[:, None, None]
    image[hole] = 0
    return patchified(image, index, patch_size), ~patchified(hole, index, patch_size).any(-1)


def assert_matches(case: dict[str, Any]) -> None:
    """Compares both outputs with the oracle, to 1e-5 of the largest value that may come out."""
    patches, valid = gather_patches(**case)
    expected, expected_valid = oracle(**case)
    stored = torch.cat([band.double().flatten() for band in case["bands"]])
    largest = stored[stored.isfinite()].abs().max() * case["scale"].max()
    torch.testing.assert_close(
        patches.double(), expected, rtol=1e-5, atol=1e-5 * largest.item() + 1e-6
    )
    assert torch.equal(valid, expected_valid)


def small_case(
    stored: torch.dtype = torch.uint16, *, t: int = 2, k: int = 3, p: int = 4, grid: int = 11
) -> dict[str, Any]:
    """Two grids, the second half as fine; the image is 3 x 4 patches."""
    channels, sides = 3, (grid, max(1, grid // 2))
    return {
        "bands": [
            random_band((1, t, count, side, side + 1), stored)
            for count, side in zip((2, 1), sides, strict=True)
        ],
        "boxes": random_boxes(1, t),
        "index": random_index(1, t, k, 12),
        "shift": torch.rand(channels) * 100,
        "scale": torch.rand(channels) + 0.5,
        "order": [2, 0, 1],
        "image_size": (3 * p, 4 * p),
        "patch_size": p,
        "nodata": None,
    }


def native_case(dtype: torch.dtype = torch.uint16) -> dict[str, Any]:
    """Four, six and two bands on grids of 10, 20 and 60 m; the image is not square."""
    batch, seasons, channels = 2, 3, 12
    return {
        "bands": [
            random_band((batch, seasons, count, 60 // step, 48 // step), dtype)
            for count, step in ((4, 1), (6, 2), (2, 6))
        ],
        "boxes": random_boxes(batch, seasons),
        "index": random_index(batch, seasons, 5, 12),
        "shift": torch.rand(channels) * 100,
        "scale": torch.rand(channels) + 0.5,
        "order": torch.randperm(channels).tolist(),
        "image_size": (24, 32),
        "patch_size": 8,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_native_grids_match_grid_sample(dtype: torch.dtype) -> None:
    assert_matches(native_case(dtype))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.uint16], ids=str)
def test_float64_patches_are_sampled_in_float64(dtype: torch.dtype) -> None:
    case = native_case(dtype)
    case["boxes"] = case["boxes"].double()
    patches, _ = gather_patches(**case, dtype=torch.float64)
    torch.testing.assert_close(patches, oracle(**case)[0], rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_full_box_of_equal_size_gives_the_stored_values(index_dtype: torch.dtype) -> None:
    band = random_band((2, 2, 3, 12, 8), torch.uint16)
    index = torch.arange(6).expand(2, 2, 6)
    patches, valid = gather_patches(
        [band],
        torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 2, 4),
        index.to(index_dtype),
        torch.zeros(3),
        torch.ones(3),
        image_size=(12, 8),
        patch_size=4,
    )
    assert torch.equal(patches, patchified(band.float(), index, 4))
    assert valid.all()


@pytest.mark.parametrize(("grid", "image"), [(3, 16), (8, 16), (20, 16), (33, 16)])
def test_full_box_matches_interpolate(grid: int, image: int) -> None:
    band = random_band((1, 1, 2, grid, grid), torch.float32)
    index = torch.arange(16).expand(1, 1, 16)
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    patches, _ = gather_patches(
        [band], box, index, torch.zeros(2), torch.ones(2), image_size=image, patch_size=4
    )
    resized = F.interpolate(band[0].double(), (image, image), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        patches.double(), patchified(resized[None], index, 4), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("nodata", [None, 0.0, 7.0, -9999.0, 0.5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lost_values_are_zero_and_their_patches_not_valid(
    dtype: torch.dtype, nodata: float | None
) -> None:
    band = random_band((2, 2, 3, 16, 16), torch.uint8).to(dtype)
    holes = torch.rand(band.shape) < 0.02
    if dtype.is_floating_point:
        stored = -9999.0 if nodata is None else nodata
        # float16 rounds -9999; what is stored then means "no measurement"
        nodata = None if nodata is None else torch.tensor(stored).to(dtype).item()
        fill = torch.tensor([stored, torch.nan, torch.inf, -torch.inf]).to(dtype)
        band = torch.where(holes, fill[torch.randint(0, 4, band.shape)], band)
    elif nodata is not None and nodata == int(nodata) and nodata >= 0:
        band = torch.where(holes, torch.tensor(int(nodata)), band.int()).to(dtype)
    case = {
        "bands": [band],
        # exact in binary: the same taps have weight 0 in float32 and in float64
        "boxes": torch.tensor([[[0.25, 0.0, 0.5, 1.0], [0.0, 0.125, -1.0, -0.75]]] * 2),
        "index": random_index(2, 2, 9, 16),
        "shift": torch.rand(3),
        "scale": torch.rand(3) + 1,
        "image_size": (16, 16),
        "patch_size": 4,
        "nodata": nodata,
    }
    assert_matches(case)
    if dtype.is_floating_point:
        valid = gather_patches(**case)[1]
        assert valid.any()
        assert not valid.all()


def test_float16_nodata_is_compared_as_stored() -> None:
    band = torch.full((1, 1, 1, 4, 4), -9999.0).half()
    patches, valid = gather_patches(
        [band],
        torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]),
        torch.zeros(1, 1, 1, dtype=torch.int64),
        torch.ones(1),
        torch.ones(1),
        image_size=4,
        patch_size=4,
        nodata=-9999.0,
    )
    assert not valid.any()
    assert torch.equal(patches, torch.zeros_like(patches))


def test_neighbour_of_weight_zero_is_not_looked_at() -> None:
    band = torch.ones(1, 1, 1, 4, 4)
    band[..., 2:, :] = torch.nan
    patches, valid = gather_patches(
        [band],
        torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]),
        torch.arange(4).reshape(1, 1, 4),
        torch.zeros(1),
        torch.ones(1),
        image_size=4,
        patch_size=2,
    )
    assert valid.flatten().tolist() == [True, True, False, False]
    assert patches[0, 0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_output_dtype_rounds_once(dtype: torch.dtype) -> None:
    case = native_case(torch.uint8)
    patches, valid = gather_patches(**case)
    rounded, same = gather_patches(**case, dtype=dtype)
    assert torch.equal(rounded, patches.to(dtype))
    assert torch.equal(same, valid)


def test_permuted_layouts_give_the_same() -> None:
    case = native_case()
    expected = gather_patches(**case)
    case["bands"] = [
        band.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0) for band in case["bands"]
    ]
    case["index"] = case["index"].mT.contiguous().mT
    case["boxes"] = case["boxes"].mT.contiguous().mT
    for actual, wanted in zip(gather_patches(**case), expected, strict=True):
        assert torch.equal(actual, wanted)
        assert actual.is_contiguous()


def test_inputs_stay_as_they_are_and_runs_repeat() -> None:
    case = native_case(torch.float32)
    before = [band.clone() for band in case["bands"]]
    first, second = gather_patches(**case, nodata=1.0), gather_patches(**case, nodata=1.0)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(case["bands"], before, strict=True))


@pytest.mark.parametrize(("batch", "seasons", "wanted"), [(0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_empty_input(batch: int, seasons: int, wanted: int) -> None:
    patches, valid = gather_patches(
        [torch.zeros(batch, seasons, 2, 4, 4)],
        torch.zeros(batch, seasons, 4),
        torch.zeros(batch, seasons, wanted, dtype=torch.int32),
        torch.zeros(2),
        torch.ones(2),
        image_size=4,
        patch_size=2,
    )
    assert patches.shape == (batch, seasons, wanted, 8)
    assert valid.shape == (batch, seasons, wanted)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 2),
    seasons=st.integers(1, 3),
    grids=st.lists(st.tuples(st.integers(1, 3), *[st.integers(1, 13)] * 2), min_size=1, max_size=3),
    patch=st.integers(1, 5),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
)
def test_any_shape_matches_grid_sample(
    seed: int,
    batch: int,
    seasons: int,
    grids: list[tuple[int, int, int]],
    patch: int,
    rows: int,
    columns: int,
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(seed)
    channels = sum(grid[0] for grid in grids)
    case = {
        "bands": [random_band((batch, seasons, *grid), dtype) for grid in grids],
        "boxes": random_boxes(batch, seasons),
        "index": random_index(batch, seasons, rows * columns, rows * columns),
        "shift": torch.rand(channels),
        "scale": torch.rand(channels) + 0.5,
        "order": torch.randperm(channels).tolist(),
        "image_size": (rows * patch, columns * patch),
        "patch_size": patch,
    }
    assert_matches(case)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bands": []}, ValueError, r"bands must hold at least one tensor \[B, T, Cg, Hg, Wg\]"),
        (
            {"bands": [torch.zeros(2, 3, 12, 4)]},
            ValueError,
            r"bands\[0\] must have shape \[B, T, Cg, Hg, Wg\] = \[\*, \*, \*, \*, \*\], "
            r"but got \[2, 3, 12, 4\]",
        ),
        (
            {"bands": [torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 2, 8, 4, 4)]},
            ValueError,
            r"bands\[1\] must have shape .* = \[2, 3, \*, \*, \*\], but got \[2, 2, 8, 4, 4\]",
        ),
        (
            {"bands": [torch.zeros(2, 3, 12, 4, 4, dtype=torch.int64)]},
            TypeError,
            r"bands\[0\] must be one of torch.uint16, .*, but got torch.int64",
        ),
        (
            {"bands": [torch.zeros(2, 3, 12, 0, 4)]},
            ValueError,
            r"bands\[0\] must have pixels, but got shape \[2, 3, 12, 0, 4\]",
        ),
        (
            {"bands": [torch.zeros(2, 3, 12, 4, 4, requires_grad=True)]},
            ValueError,
            r"bands\[0\] must not require grad: gather_patches gives no gradient for it",
        ),
        (
            {"boxes": torch.zeros(2, 3, 3)},
            ValueError,
            r"boxes must have shape \[B, T, 4\] = \[2, 3, 4\], but got \[2, 3, 3\]",
        ),
        (
            {"boxes": torch.zeros(2, 3, 4, dtype=torch.int64)},
            TypeError,
            r"boxes must be a floating-point tensor, but got torch.int64",
        ),
        (
            {"index": torch.zeros(3, 3, 16, dtype=torch.int64)},
            ValueError,
            r"index must have shape \[B, T, K\] = \[2, 3, \*\], but got \[3, 3, 16\]",
        ),
        (
            {"index": torch.zeros(2, 3, 5)},
            TypeError,
            r"index must be int32 or int64, but got torch.float32",
        ),
        (
            {"index": torch.full((2, 3, 5), 12)},
            IndexError,
            r"index must hold patch numbers in \[0, 12\), but got 12",
        ),
        (
            {"index": torch.full((2, 3, 5), -1)},
            IndexError,
            r"index must hold patch numbers in \[0, 12\), but got -1",
        ),
        (
            {"shift": torch.zeros(11)},
            ValueError,
            r"shift must have shape \[C\] = \[12\], but got \[11\]",
        ),
        (
            {"scale": torch.zeros(12, device="meta")},
            ValueError,
            r"scale must be on cpu like the first input, but got meta",
        ),
        (
            {"order": [0] * 12},
            ValueError,
            r"order must be a permutation of 0\.\.11, but got \(0, 0, ",
        ),
        (
            {"image_size": (24, 30)},
            ValueError,
            r"patch_size must be positive and divide image_size \(24, 30\), but got 8",
        ),
        (
            {"image_size": (24, 32, 8)},
            ValueError,
            r"image_size must be one number or \(height, width\), but got \(24, 32, 8\)",
        ),
        (
            {"dtype": torch.int32},
            TypeError,
            r"dtype must be floating-point, but got torch.int32",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gather_patches(**{**native_case(), **change})
