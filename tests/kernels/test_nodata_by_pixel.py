"""Nodata by pixel in gather_patches, by every backend: it counts where all bands hold it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from bench.ops import gather_patches as OP
from tests.kernels import cuda_host
from tests.kernels.contract import Backend, Subject, assert_equal
from tests.kernels.layouts import laid_out, reversed_in_memory
from tests.kernels.test_gather_patches import STORED, check_some, lose, whole


def lose_pixels(x: OP.Arguments, value: float, part: float = 0.55) -> OP.Arguments:
    """Writes a value in all bands of the upper part of the first image, as beside a swath."""
    for band in x.bands:
        numbers = band.view(torch.int16) if band.dtype == torch.uint16 else band
        numbers[0, 0, :, : round(part * band.shape[3])] = value
    return x


def of_few_values(x: OP.Arguments, rate: float = 0.5) -> OP.Arguments:
    """Many values are nodata, 0: now and then in all bands; some of the floats are NaN."""
    bands = []
    for band in x.bands:
        values = torch.rand(band.shape, device=band.device) >= rate
        bands.append(values.to(band.dtype))
        if band.is_floating_point():
            bands[-1].masked_fill_(torch.rand(band.shape, device=band.device) < 0.01, torch.nan)
    return x._replace(bands=bands, nodata=0.0, whole_pixel=True)


def small(subject: Subject, *grids: list[list[float]], stored: torch.dtype) -> OP.Arguments:
    """Whole grids of one band each, over an image of the size of the first; a pixel a patch."""
    bands = [torch.tensor(grid)[None, None, None].to(stored) for grid in grids]
    side = bands[0].shape[-1]
    x = subject.make(stored, t=1, p=1, k=side**2, patches=(side, side), grids=((1, 1, 1),))
    return x._replace(
        bands=[band.to(x.bands[0].device) for band in bands],
        boxes=torch.tensor([[[0.0, 0.0, 1.0, 1.0]]]).to(x.boxes),
        index=torch.arange(side**2).view(1, 1, -1).to(x.index),
        shift=torch.full((len(bands),), 2.0).to(x.shift),
        scale=torch.ones(len(bands)).to(x.scale),
        order=[*range(len(bands))],
        nodata=0.0,
        whole_pixel=True,
    )


@STORED
def test_nodata_in_some_bands_is_a_value(subject: Subject, stored: torch.dtype) -> None:
    x = lose(subject.make(stored, t=3, k=12, p=8, nodata=5.0, grids=OP.NATIVE), 5)
    assert not subject.check(x)["valid"].any()
    assert subject.check(x._replace(whole_pixel=True))["valid"].all()


@STORED
def test_pixels_that_no_band_measured_are_lost(subject: Subject, stored: torch.dtype) -> None:
    x = subject.make(stored, t=2, k=12, p=8, nodata=5.0, whole_pixel=True, grids=OP.NATIVE)
    valid = subject.check(lose_pixels(lose(x, 5), 5))["valid"]
    assert valid[0, 1].all()
    assert not valid[0, 0].all()


@STORED
def test_both_rules_are_one_for_a_single_band(subject: Subject, stored: torch.dtype) -> None:
    x = lose(subject.make(stored, t=3, k=12, nodata=5.0, grids=((1, 11, 12),)), 5)
    if subject.takes(x):
        assert_equal(subject.run(x._replace(whole_pixel=True)), subject.run(x))


def test_without_nodata_only_what_is_not_finite_is_lost(subject: Subject) -> None:
    x = lose(subject.make(torch.float32, k=12, whole_pixel=True), torch.nan, 0.005)
    check_some(subject, x)


def test_what_is_not_finite_is_lost_in_its_band(subject: Subject) -> None:
    first, second = torch.tensor([[0.0, 0.0], [torch.nan, 3.0]]), torch.tensor([[3.0, 0], [0, 3]])
    x = small(subject, first.tolist(), second.tolist(), stored=torch.float32)
    results = subject.check(x)
    # 0 beside 3; 0 twice; NaN beside 0; 3 twice
    assert results["valid"].flatten().tolist() == [True, False, False, True]
    assert results["patches"][0, 0].tolist() == [[-2, 1], [0, 0], [0, 0], [1, 1]]
    first[1, 0], second[1, 1] = torch.inf, torch.nan
    second[1, 0] = 3
    results = subject.check(small(subject, first.tolist(), second.tolist(), stored=torch.float32))
    assert results["valid"].flatten().tolist() == [True, False, False, False]
    assert results["patches"][0, 0].tolist() == [[-2, 1], [0, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("stored", [torch.uint16, torch.float32], ids=str)
def test_of_other_grids_the_pixel_at_the_centre_counts(
    subject: Subject, stored: torch.dtype
) -> None:
    fine, coarse = torch.full((8, 8), 5.0), torch.tensor([[7.0, 7.0], [7.0, 0.0]])

    def lost() -> list[list[int]]:
        x = small(subject, fine.tolist(), coarse.tolist(), stored=stored)
        return (~subject.check(x)["valid"]).view(8, 8).nonzero().tolist()

    assert lost() == []
    fine[5, 5] = 0  # the coarse pixel there is 0, but it has its centre at [6, 6]
    assert lost() == [[5, 5]]
    fine[5, 5], fine[2, 2] = 5, 0
    assert lost() == []
    fine[2, 2], fine[6, 6] = 5, 0  # now neither measured
    assert lost() == [[i, j] for i in range(2, 8) for j in range(2, 8)]
    fine[:], coarse[:] = 0, torch.tensor([[7.0, 0.0], [0.0, 0.0]])
    assert lost() == [[i, j] for i in range(8) for j in range(8) if i > 1 or j > 1]


def test_grids_of_different_dtypes_by_pixel(subject: Subject) -> None:
    grids = ((2, 13, 70), (1, 4, 4), (3, 1, 5))
    kinds = (torch.float32, torch.uint16, torch.uint8), (torch.int16, torch.float16, torch.uint16)
    for each in kinds:
        cases = [subject.make(kind, grids=grids, nodata=0.0, whole_pixel=True) for kind in each]
        x = cases[0]._replace(bands=[case.bands[g] for g, case in enumerate(cases)])
        valid = subject.check(lose_pixels(x, 0, 1.0))["valid"]
        assert not valid[0, 0].any()
        valid = subject.check(lose(x, 0, 0.1))["valid"]
        assert valid[0, 1].any()


def test_a_nodata_that_a_dtype_cannot_hold(subject: Subject) -> None:
    grids = ((2, 11, 12), (1, 5, 6))
    cases = [subject.make(kind, k=12, grids=grids) for kind in (torch.float32, torch.uint8)]
    x = cases[0]._replace(bands=[cases[0].bands[0], cases[1].bands[1]], nodata=-9999.0)
    x.bands[0].masked_fill_(torch.rand(x.bands[0].shape, device=x.index.device) < 0.5, -9999)
    assert not subject.check(x)["valid"].any()
    assert subject.check(x._replace(whole_pixel=True))["valid"].all()


def test_a_grid_without_channels_measures_nothing(subject: Subject) -> None:
    grids = ((2, 11, 12), (0, 5, 5), (1, 5, 6))
    x = subject.make(k=12, grids=grids, nodata=5.0, whole_pixel=True)
    valid = subject.check(lose_pixels(x, 5))["valid"]
    assert not valid[0, 0].all()


@pytest.mark.parametrize("stored", [torch.uint16, torch.uint8, torch.float16], ids=str)
def test_a_full_box_by_pixel(subject: Subject, stored: torch.dtype) -> None:
    x = whole(subject, stored, nodata=5.0, whole_pixel=True)
    assert subject.check(lose(x, 5, 0.3))["valid"].any()
    valid = subject.check(lose_pixels(x, 5, 0.5))["valid"]
    assert valid[1].any()
    assert not valid[0].all()


def test_bands_of_any_layout_by_pixel(subject: Subject) -> None:
    x = subject.make(batch=2, t=1, k=12, p=8, grids=((3, 60, 48), (1, 10, 8)))
    x = of_few_values(x, 0.25)
    expected = subject.check(x)
    assert 0 < expected["valid"].sum() < expected["valid"].numel()
    assert_equal(subject.run(laid_out(x, reversed_in_memory)), expected)
    row = x._replace(bands=[band[..., :1, :].expand_as(band) for band in x.bands])
    copied = row._replace(bands=[band.contiguous() for band in row.bands])
    assert_equal(subject.run(row), subject.check(copied))


def test_any_shape_by_pixel(subject: Subject) -> None:
    if subject.backend.name == "reference":
        pytest.skip("the others are compared with it")
    sides = st.integers(1, 30)

    @subject.for_any(
        seed=st.integers(0, 2**31),
        stored=st.sampled_from([dtype for dtype in OP.DTYPES if dtype != torch.float64]),
        sizes=st.fixed_dictionaries(
            {
                "batch": st.integers(1, 2),
                "t": st.integers(1, 3),
                "k": st.integers(1, 9),
                "p": st.integers(1, 17),
                "grids": st.lists(
                    st.tuples(st.integers(1, 2), sides, sides), min_size=1, max_size=3
                ),
                "patches": st.tuples(st.integers(1, 3), st.integers(1, 3)),
            }
        ),
    )
    def holds(seed: int, stored: torch.dtype, sizes: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        x = of_few_values(subject.make(stored, **sizes))
        for case in (x, x._replace(whole_pixel=False)):
            # positions are rounded as in the reference: what is lost agrees to the bit
            actual = subject.run(case)
            patches, valid = subject.reference.forward(*case)
            assert torch.equal(actual["valid"], valid)
            torch.testing.assert_close(actual["patches"], patches, rtol=1e-5, atol=1e-3)


def test_any_exact_region_by_pixel(subject: Subject) -> None:
    powers = st.sampled_from([1, 2, 4])

    @subject.for_any(
        seed=st.integers(0, 2**31),
        stored=st.sampled_from(OP.DTYPES),
        box=st.tuples(*[st.sampled_from([0.0, 0.125, 0.5])] * 2, *[st.sampled_from([1, -1])] * 2),
        sizes=st.fixed_dictionaries(
            {
                "p": powers,
                "patches": st.tuples(powers, powers),
                "grids": st.lists(
                    st.tuples(st.integers(1, 2), st.integers(1, 30), st.integers(1, 30)),
                    min_size=1,
                    max_size=3,
                ),
            }
        ),
    )
    def holds(
        seed: int, stored: torch.dtype, box: tuple[float, ...], sizes: dict[str, Any]
    ) -> None:
        torch.manual_seed(seed)
        x = of_few_values(subject.make(stored, t=1, k=1, **sizes))
        top, left, down, right = box
        region = torch.tensor([top, left, down * (1 - top), right * (1 - left)])
        # in float64 the same taps have weight 0
        subject.check(x._replace(boxes=region.expand(1, 1, 4).to(x.boxes)))


# ---- single backends ----


def test_every_triton_configuration_by_pixel(
    triton: Backend, configuration: Callable[..., None]
) -> None:
    subject = Subject(OP, triton)
    x = of_few_values(subject.make(torch.uint16, t=1, k=12, p=8))
    expected = subject.run(x)
    for number in range(1, len(subject.module._CONFIGS)):
        configuration(subject.module._tuned, number)
        assert_equal(subject.run(x), expected)


def test_nodata_by_pixel_on_every_instruction_set(cpu: Backend, instruction_set: None) -> None:
    subject = Subject(OP, cpu)
    for sizes in ({"p": 16, "grids": ((2, 70, 70), (1, 23, 23))}, *OP.MANY):
        subject.check(lose_pixels(lose(subject.make(nodata=5.0, whole_pixel=True, **sizes), 5), 5))


def test_many_grids_are_left_by_cuda(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    x = of_few_values(subject.make(grids=((1, 3, 3),) * 9))
    assert subject.module.forward(*x) is None
    eight = of_few_values(subject.make(grids=((1, 3, 3),) * 8))
    for case in (eight, x._replace(whole_pixel=False)):
        subject.check(case)


@cuda_host.checked
def test_cuda_accesses_of_memory_by_pixel(cuda: Backend) -> None:
    subject = Subject(OP, cuda)
    subject.check(of_few_values(subject.make(k=12)))
    x = whole(subject, torch.uint16, nodata=5.0, whole_pixel=True)
    subject.check(lose_pixels(lose(x, 5), 5))
