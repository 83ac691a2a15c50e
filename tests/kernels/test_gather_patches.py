"""gather_patches by every backend, against grids sampled by F.grid_sample in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.ops import gather_patches as OP
from seamo_fast.kernels import gather_patches
from seamo_fast.kernels.gather_patches import reference
from tests.kernels import cuda_host
from tests.kernels.contract import EVERY_DTYPE, Backend, Subject, assert_equal
from tests.kernels.layouts import LAYOUTS, Layout, laid_out, reversed_in_memory

STORED = pytest.mark.parametrize("stored", OP.DTYPES, ids=str)


def whole(
    subject: Subject, stored: torch.dtype, *, height: int = 16, **changes: Any
) -> OP.Arguments:
    """Full boxes over a grid of the image's size: nothing is resampled."""
    x = subject.make(
        stored, batch=2, t=1, k=5, p=8, patches=(2, 3), grids=((10, height, 24),), **changes
    )
    shift, scale = torch.zeros_like(x.shift), torch.ones_like(x.scale)
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4).to(x.boxes, copy=True)
    return x._replace(boxes=boxes, shift=shift, scale=scale, order=[*range(10)][::-1])


def lose(x: OP.Arguments, value: float, rate: float = 0.02) -> OP.Arguments:
    """Writes a value in some places of the bands."""
    for band in x.bands:
        places = torch.rand(band.shape, device=band.device) < rate
        numbers = band.view(torch.int16) if band.dtype == torch.uint16 else band
        numbers.masked_fill_(places, value)
    return x


def check_some(subject: Subject, x: OP.Arguments) -> None:
    """Checks a case in which some patches are lost and some are not."""
    valid = subject.check(x)["valid"]
    assert valid.any()
    assert not valid.all()


@STORED
def test_dtypes(subject: Subject, stored: torch.dtype, dtype: torch.dtype) -> None:
    subject.check(subject.make(stored, dtype=dtype))


@STORED
def test_three_native_grids(subject: Subject, stored: torch.dtype) -> None:
    subject.check(subject.make(stored, k=5, p=8, grids=OP.NATIVE))


@pytest.mark.parametrize(
    "kinds",
    [
        (torch.float32, torch.uint16, torch.uint8),
        (torch.uint8, torch.int16, torch.float16),
        (torch.float16, torch.float32, torch.int16),
    ],
    ids=str,
)
def test_grids_of_different_dtypes(subject: Subject, kinds: tuple[torch.dtype, ...]) -> None:
    grids = ((2, 13, 70), (1, 4, 4), (3, 1, 5))
    cases = [subject.make(kind, grids=grids, nodata=0.0) for kind in kinds]
    x = cases[0]._replace(bands=[case.bands[g] for g, case in enumerate(cases)])
    subject.check(lose(x, 0))


@pytest.mark.parametrize("sizes", OP.SIZES, ids=str)
def test_sizes(subject: Subject, sizes: dict[str, Any]) -> None:
    subject.check(subject.make(**sizes))


@pytest.mark.parametrize("sizes", OP.EMPTY, ids=str)
def test_empty_input(subject: Subject, dtype: torch.dtype, sizes: dict[str, int]) -> None:
    results = subject.check(subject.make(dtype=dtype, **sizes))
    assert results["patches"].numel() == results["valid"].numel() == 0
    assert results["patches"].shape[-1] == 3 * 4 * 4


def test_a_grid_without_channels(subject: Subject) -> None:
    subject.check(subject.make(grids=((2, 11, 12), (0, 5, 5), (1, 5, 6))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(subject: Subject, layout: Layout) -> None:
    subject.check(laid_out(subject.make(batch=2), layout))


@STORED
def test_bands_last_in_memory(subject: Subject, stored: torch.dtype) -> None:
    x = subject.make(stored)
    # a slice of a longer series
    bands = [
        torch.stack([band, band], 1).movedim(3, -1).contiguous().movedim(-1, 3)[:, 1]
        for band in x.bands
    ]
    subject.check(x._replace(bands=bands))


def test_other_layouts_give_the_same_bits(subject: Subject) -> None:
    x = subject.make(batch=2, t=1, k=5, p=8, grids=OP.NATIVE)
    assert_equal(subject.run(laid_out(x, reversed_in_memory)), subject.run(x))


@pytest.mark.parametrize("columns", [slice(1, 25), slice(8, 32)], ids=["odd", "even"])
def test_full_box_over_a_slice(subject: Subject, columns: slice) -> None:
    x = whole(subject, torch.uint16)
    (wide,) = subject.make(torch.uint16, batch=2, t=3, grids=((10, 16, 40),)).bands
    subject.check(x._replace(bands=[wide[:, 1:2, ..., columns]]))


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=str)
def test_index_dtypes(subject: Subject, index_dtype: torch.dtype) -> None:
    x = subject.make()
    subject.check(x._replace(index=x.index.to(index_dtype)))


def test_boxes_and_statistics_of_other_dtypes(subject: Subject) -> None:
    x = subject.make()
    x = x._replace(index=x.index.int(), boxes=x.boxes.double(), shift=x.shift.double())
    subject.check(x._replace(scale=x.scale.half()))


# ---- what is lost ----


@pytest.mark.parametrize("nodata", [None, 0.0, 5.0, 7.0, -9999.0, 0.5])
@STORED
def test_lost_values_are_zero_and_their_patches_not_valid(
    subject: Subject, stored: torch.dtype, nodata: float | None
) -> None:
    x = subject.make(torch.uint8, k=9, patches=(4, 4), grids=((3, 16, 16),))
    # exact in binary: the same taps have weight 0 in float32 and in float64
    boxes = torch.tensor([[[0.25, 0.0, 0.5, 1.0], [0.0, 0.125, -1.0, -0.75]]]).to(x.boxes)
    x = x._replace(boxes=boxes, bands=[band.to(stored) for band in x.bands])
    if stored.is_floating_point:
        fill = [torch.nan, torch.inf, -torch.inf]
        if nodata is not None:
            # float16 rounds -9999; what is stored then means "no measurement"
            nodata = torch.tensor(nodata).to(stored).item()
            fill.append(nodata)
        for value in fill:
            lose(x, value, 0.005)
        check_some(subject, x._replace(nodata=nodata))
        return
    if nodata is not None and nodata == int(nodata) and nodata >= 0:
        lose(x, int(nodata), 0.005)
    subject.check(x._replace(nodata=nodata))


# a block of 512 or 256 pixels ends amid those of an image: lanes after it write nothing
@pytest.mark.parametrize("stored", [torch.uint16, torch.float32], ids=str)
@pytest.mark.parametrize(("patch", "wanted", "channels"), [(4, 3, 1), (7, 11, 9), (16, 3, 2)])
def test_what_one_image_loses_stays_with_it(
    subject: Subject, stored: torch.dtype, patch: int, wanted: int, channels: int
) -> None:
    x = subject.make(
        stored,
        batch=2,
        k=wanted,
        p=patch,
        grids=((channels, 17, 19), (1, 1, 2)),
        nodata=0.0,
    )
    for band in x.bands:
        numbers = band.view(torch.int16) if band.dtype == torch.uint16 else band
        numbers.masked_fill_(numbers == 0, 1)
        numbers[1, 0] = 0  # all of one image, nothing of the others
    valid = subject.check(x)["valid"]
    assert not valid[1, 0].any()
    assert valid.sum() == 3 * wanted


@STORED
def test_nodata(subject: Subject, stored: torch.dtype) -> None:
    check_some(subject, lose(subject.make(stored, t=3, k=12, nodata=5.0), 5))


def test_what_is_not_finite_is_lost(subject: Subject) -> None:
    x = subject.make(torch.float16, k=12)
    for value in (torch.nan, torch.inf, -torch.inf):
        x.bands[0][0, 0, 0, 2, 3] = value
        assert subject.check(x)["valid"].any()


FILLS = {
    torch.uint8: (255,),
    torch.uint16: (-1,),  # as int16
    torch.int16: (-32768, 32767),
    torch.float16: (-9999, -32768, -torch.inf),
    torch.float32: (-3.4028234663852886e38, 9.969209968386869e36, 1e30, -9999),
    torch.float64: (-1.7976931348623157e308, -3.4028234663852886e38, 1e30, -9999),
}


@STORED
def test_what_is_beyond_the_limit_is_lost(subject: Subject, stored: torch.dtype) -> None:
    x = subject.make(torch.uint8, t=3, k=12, limit=200.0)
    x = x._replace(bands=[(band // 2).to(stored) for band in x.bands])
    for value in FILLS[stored]:
        lose(x, value, 0.004)
    check_some(subject, x)
    if not stored.is_floating_point:
        assert subject.check(x._replace(limit=OP.LARGEST))["valid"].all()


@pytest.mark.parametrize("whole_pixel", [False, True])
@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.float64], ids=str)
def test_what_is_beyond_the_limit_is_as_nan(
    subject: Subject, stored: torch.dtype, whole_pixel: bool
) -> None:
    x = subject.make(stored, t=2, k=12, p=8, grids=OP.NATIVE, nodata=0.0, limit=9e3)
    x = lose(x._replace(whole_pixel=whole_pixel), 0, 0.001)
    for value in FILLS[stored]:
        lose(x, value, 0.0005)
    masked = [band.masked_fill(~(band.double().abs() <= 9e3), torch.nan) for band in x.bands]
    assert any(not torch.equal(a, b) for a, b in zip(masked, x.bands, strict=True))
    if subject.takes(x):
        expected = subject.run(x._replace(bands=masked, limit=OP.LARGEST))
        assert_equal(subject.run(x), expected)
        assert expected["patches"].isfinite().all()
        assert_equal(
            subject.run(x._replace(bands=masked)), expected
        )  # sane values stay as they are


def test_a_hole_may_be_beyond_the_limit_in_some_bands(subject: Subject) -> None:
    x = subject.make(torch.float32, t=1, p=1, k=4, patches=(2, 2), grids=((3, 2, 2),))
    pixels = [[0.0, 1e30, -9999], [0, 1, 0], [1e30, 2, 3], [1, 2, 3]]
    box, band = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]), torch.tensor(pixels).mT.view(1, 1, 3, 2, 2)
    x = x._replace(
        bands=[band.to(x.bands[0])],
        boxes=box.to(x.boxes),
        index=torch.arange(4).view(1, 1, 4).to(x.index),
        nodata=0.0,
        whole_pixel=True,
        limit=9e3,
    )
    results = subject.check(x)
    assert results["valid"].flatten().tolist() == [False, True, False, True]
    assert (results["patches"][0, 0] == 0).sum(1).tolist() == [3, 0, 1, 0]


@pytest.mark.parametrize("stored", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_limit_itself_is_a_value(subject: Subject, stored: torch.dtype) -> None:
    x = subject.make(stored, t=1, p=1, k=4, patches=(2, 2), grids=((1, 2, 2),), limit=1000.0)
    above = torch.nextafter(torch.tensor(1000.0), torch.tensor(2000.0)).item()
    above = above if stored != torch.float16 else 1001.0
    band = torch.tensor([[1000.0, -1000.0], [above, -above]]).to(x.bands[0])
    x = x._replace(
        bands=[band[None, None, None]],
        boxes=torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).to(x.boxes),
        index=torch.arange(4).view(1, 1, 4).to(x.index),
    )
    assert subject.check(x)["valid"].flatten().tolist() == [True, True, False, False]


def test_integers_that_cannot_exceed_the_limit_are_not_copied() -> None:
    bands = [torch.zeros(1, dtype=dtype) for dtype in (torch.uint8, torch.uint16, torch.int16)]
    for limit, kept in ((1e6, 3), (65535, 3), (65534, 2), (32768, 2), (32767, 1), (254, 0)):
        read = reference.as_read(bands, limit)
        assert [a is b for a, b in zip(read, bands, strict=True)].count(True) == kept
        assert {band.dtype for band in read} <= {torch.float32, *(band.dtype for band in bands)}


def test_float16_nodata_is_compared_as_stored(subject: Subject) -> None:
    x = subject.make(torch.float16, t=1, k=1, patches=(1, 1), grids=((1, 4, 4),), nodata=-9999.0)
    box = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).to(x.boxes)
    results = subject.run(x._replace(bands=[torch.full_like(x.bands[0], -9999.0)], boxes=box))
    assert not results["valid"].any()
    assert not results["patches"].any()


def test_neighbour_of_weight_zero_is_not_looked_at(subject: Subject) -> None:
    x = subject.make(torch.float32, t=1, k=4, p=2, patches=(2, 2), grids=((1, 4, 4),))
    x.bands[0].fill_(1)[..., 2:, :] = torch.nan
    x = x._replace(
        boxes=torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).to(x.boxes),
        index=torch.arange(4).view(1, 1, 4).to(x.index),
        shift=torch.zeros_like(x.shift),
        scale=torch.ones_like(x.scale),
    )
    results = subject.check(x)
    assert results["valid"].flatten().tolist() == [True, True, False, False]
    assert results["patches"][0, 0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2


# ---- nothing is resampled ----


@STORED
def test_full_box_gives_the_stored_values(subject: Subject, stored: torch.dtype) -> None:
    x = whole(subject, stored)
    if not subject.takes(x):
        return
    results = subject.run(x)
    assert results["valid"].all()
    image = x.bands[0].to(results["patches"]).flip(2)  # in the order of the output
    assert torch.equal(results["patches"], OP.patchified(image, x.index, 8))


@pytest.mark.parametrize("stored", [torch.uint16, torch.float16], ids=str)
def test_what_a_full_box_loses(subject: Subject, stored: torch.dtype) -> None:
    check_some(subject, lose(whole(subject, stored, nodata=5.0), 5, 0.001))
    if stored.is_floating_point:
        subject.check(lose(whole(subject, stored), torch.nan, 0.001))


@pytest.mark.parametrize("side", [2, 3], ids=["height", "width"])
def test_flips(subject: Subject, side: int) -> None:
    x = whole(subject, torch.uint16)
    x.boxes[0, 0, side] = -1
    subject.check(x)


def test_one_resampled_axis(subject: Subject) -> None:
    # a neighbour without weight may be lost
    check_some(subject, lose(whole(subject, torch.int16, height=17, nodata=5.0), 5, 0.002))


@pytest.mark.parametrize("corner", [(0, 4), (3, 8), (0, 0.5), (0.5, 0)], ids=str)
def test_boxes_of_the_size_of_the_image(subject: Subject, corner: tuple[float, float]) -> None:
    x = whole(subject, torch.uint16)
    bands = subject.make(torch.uint16, batch=2, t=1, grids=((10, 32, 32),)).bands
    boxes = torch.tensor([*corner, 16.0, 24.0]).expand(2, 1, 4).to(x.boxes) / 32
    subject.check(x._replace(bands=bands, boxes=boxes))


@pytest.mark.parametrize(("grid", "image"), [(3, 16), (8, 16), (20, 16), (33, 16)])
def test_full_box_matches_interpolate(subject: Subject, grid: int, image: int) -> None:
    x = subject.make(torch.float32, t=1, k=16, patches=(4, 4), grids=((2, grid, grid),))
    x = x._replace(
        boxes=torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).to(x.boxes),
        shift=torch.zeros_like(x.shift),
        scale=torch.ones_like(x.scale),
        order=[0, 1],
    )
    resized = F.interpolate(
        x.bands[0][0].double(), (image, image), mode="bilinear", align_corners=False
    )
    expected = OP.patchified(resized[None], x.index, 4)
    patches = subject.run(x)["patches"].double()
    torch.testing.assert_close(patches, expected, rtol=1e-5, atol=1e-4)


# ---- numbers ----


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_output_dtype_rounds_once(subject: Subject, half: torch.dtype) -> None:
    x = subject.make(torch.uint8, t=1, k=5, p=8, grids=OP.NATIVE)
    full, rounded = subject.run(x), subject.run(x._replace(dtype=half))
    assert torch.equal(rounded["patches"], full["patches"].to(half))
    assert torch.equal(rounded["valid"], full["valid"])


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.uint16], ids=str)
def test_float64_patches_are_sampled_in_float64(public: Backend, stored: torch.dtype) -> None:
    x = OP.make(stored, batch=2, t=3, k=5, p=8, grids=OP.NATIVE, dtype=torch.float64)
    x = x._replace(boxes=x.boxes.double())
    patches, _ = gather_patches(**x._asdict())
    torch.testing.assert_close(patches, OP.formula(*x)[0], rtol=1e-11, atol=1e-9)


@STORED
def test_runs_repeat_to_the_bit(subject: Subject, stored: torch.dtype) -> None:
    x = subject.make(stored, k=12, nodata=1.0)
    if stored.is_floating_point:
        x.bands[0][0, 0, 0, 2, 3] = torch.nan
    before = [band.clone() for band in x.bands]
    subject.check_repeats(x)
    for band, same in zip(x.bands, before, strict=True):
        torch.testing.assert_close(band, same, rtol=0, atol=0, equal_nan=True)


def test_any_shape(subject: Subject) -> None:
    @subject.for_any(
        seed=st.integers(0, 2**31),
        stored=st.sampled_from(OP.DTYPES),
        layout=st.sampled_from(LAYOUTS),
        sizes=st.fixed_dictionaries(
            {
                "batch": st.integers(1, 2),
                "t": st.integers(1, 3),
                "k": st.integers(1, 9),
                "p": st.integers(1, 9),
                "grids": st.lists(
                    st.tuples(st.integers(1, 3), st.integers(1, 30), st.integers(1, 30)),
                    min_size=1,
                    max_size=3,
                ),
                "patches": st.tuples(st.integers(1, 3), st.integers(1, 3)),
                "dtype": st.sampled_from(EVERY_DTYPE),
            }
        ),
    )
    def holds(seed: int, stored: torch.dtype, layout: Layout, sizes: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        subject.check(laid_out(subject.make(stored, **sizes), layout))


# ---- the public function ----


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
        *(
            (
                {"limit": limit},
                ValueError,
                r"limit must be positive and at most 3.40282347e\+38, .*, but got "
                + re.escape(str(limit)),
            )
            for limit in (0.0, -1.0, torch.inf, torch.nan, 1e39)
        ),
        (
            {"dtype": torch.int32},
            TypeError,
            r"dtype must be floating-point, but got torch.int32",
        ),
    ],
)
def test_bad_input_is_named(
    public: Backend, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    x = OP.make(batch=2, t=3, k=5, p=8, grids=OP.NATIVE)._replace(**change)
    with pytest.raises(error, match=message):
        gather_patches(**x._asdict())


@pytest.mark.parametrize("side", [3, 4], ids=["height", "width"])
def test_the_longest_side(side: int) -> None:
    x = OP.make(grids=((3, 2, 2),), k=1)
    longest = list(x.bands[0].shape)
    longest[side] = 2**24  # neighbours differ in float32 up to here
    meta = [value.to("meta") for value in (x.boxes, x.index, x.shift, x.scale)]
    rest = {**x._asdict(), **dict(zip(("boxes", "index", "shift", "scale"), meta, strict=True))}
    band = torch.empty(longest, dtype=torch.uint16, device="meta")
    assert gather_patches(**{**rest, "bands": [band]})[1].shape == x.index.shape
    longest[side] += 1
    band = torch.empty(longest, dtype=torch.uint16, device="meta")
    with pytest.raises(ValueError, match="must have at most 16777216 pixels a side"):
        gather_patches(**{**rest, "bands": [band]})


def test_order_and_size_may_be_left_out(public: Backend) -> None:
    x = OP.make(k=9, patches=(3, 3))._replace(order=[0, 1, 2])
    expected = gather_patches(**x._asdict())
    found = gather_patches(*x[:5], image_size=12, patch_size=4)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# ---- single backends ----


def test_every_triton_configuration(triton: Backend, configuration: Callable[..., None]) -> None:
    subject = Subject(OP, triton)
    x = subject.make(torch.float32, t=1, k=12, p=8)
    x.bands[0][0, 0, 0, 2:5, 2:5] = torch.nan
    expected = subject.run(x)
    for number in range(1, len(subject.module._CONFIGS)):
        configuration(subject.module._tuned, number)
        assert_equal(subject.run(x), expected)


@cuda_host.checked
def test_cuda_accesses_of_memory(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    subject.check(subject.make(k=12))
    subject.check(lose(whole(subject, torch.uint16, nodata=5.0, dtype=torch.bfloat16), 5, 0.001))
    subject.check(subject.make(torch.uint8, p=3))
