"""Which footprints overlap, against areas by hand and exact ones, all with all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import assume, given
from hypothesis import strategies as st

from seamo_fast.data.packing.leaks import overlap
from seamo_fast.data.packing.leaks.groups import connected, listed
from seamo_fast.data.packing.leaks.overlap import LEAST, common_area, overlapping
from seamo_fast.data.packing.sources.formats.geo import square, tiff_footprint, to_degrees

Box = tuple[float, float, float, float]  # west, south, width, height


def corners_of(box: Box) -> list[tuple[float, float]]:
    """As a GeoTIFF gives them: clockwise from the north-west."""
    x, y, width, height = box
    return [(x, y + height), (x + width, y + height), (x + width, y), (x, y)]


def pairs_of(boxes: Sequence[Box], owners: Sequence[int] | None = None) -> set[tuple[int, int]]:
    corners = np.array([corners_of(box) for box in boxes], float).reshape(-1, 4, 2)
    numbers = np.arange(len(boxes)) if owners is None else np.array(owners)
    found = [pair for pairs in overlapping(corners, numbers) for pair in pairs.tolist()]
    return {(min(pair), max(pair)) for pair in found}


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ((10, 50, 0.02, 0.02), (10.01, 50.01, 0.02, 0.02), True),  # a quarter
        ((10, 50, 0.02, 0.02), (10, 50, 0.02, 0.02), True),  # equal
        ((10, 50, 0.2, 0.2), (10.1, 50.1, 0.001, 0.001), True),  # contained, 4 levels finer
        ((10, 50, 0.02, 0.02), (10.02, 50, 0.02, 0.02), False),  # a common side
        ((10, 50, 0.02, 0.02), (10.02, 50.02, 0.02, 0.02), False),  # a common corner
        ((10, 50, 0.02, 0.02), (10.0199, 50, 0.02, 0.02), False),  # half a per cent
        ((10, 50, 0.02, 0.02), (10.0197, 50, 0.02, 0.02), True),  # one and a half
        ((10, 50, 0.02, 0.02), (10.0199, 50, 0.0004, 0.02), True),  # a quarter of the smaller
        ((10, 50, 0.02, 0.02), (30, 50, 0.02, 0.02), False),
        ((179.99, 5, 0.02, 0.02), (-179.995, 5, 0.02, 0.02), True),  # across the antimeridian
        ((179.98, 5, 0.02, 0.02), (-180, 5, 0.02, 0.02), False),  # a side on it
        ((179.99, 5, 0.02, 0.02), (-180.01, 5.01, 0.02, 0.02), True),  # numbered both ways
        ((350, 5, 0.02, 0.02), (-10, 5, 0.02, 0.02), True),  # east of Greenwich alone
        ((20, 84, 0.2, 0.02), (20.1, 84.01, 0.2, 0.02), True),  # wide in degrees, in the north
        ((20, 84, 0.2, 0.02), (20.2, 84, 0.2, 0.02), False),
        ((-30, -90, 40, 1), (0, -89.5, 40, 1), True),  # at the pole
        ((-100, -20, 170, 40), (10, 10, 0.001, 0.001), True),  # a continent and a field
        ((0, 0, 0, 0.1), (0, 0, 0.1, 0.1), False),  # no area
        ((-180, -90, 360, 180), (0, 0, 0.1, 0.1), False),  # all of the Earth says nothing
        ((0, 0, np.nan, 0.1), (0, 0, 0.1, 0.1), False),
        ((-0.01, -0.01, 0.02, 0.02), (-0.001, -0.001, 0.02, 0.02), True),  # around 0
    ],
)
def test_two_boxes(one: Box, other: Box, together: bool) -> None:
    assert pairs_of([one, other]) == pairs_of([other, one]) == ({(0, 1)} if together else set())


def test_a_place_does_not_overlap_itself() -> None:
    boxes = [(10.0, 50.0, 0.02, 0.02), (10.01, 50.0, 0.02, 0.02), (10.01, 50.0, 0.02, 0.02)]
    assert pairs_of(boxes, [7, 7, 7]) == set()
    assert pairs_of(boxes, [7, 7, 9]) == {(7, 9)}
    assert pairs_of([]) == set()


def test_one_footprint_of_many_names() -> None:
    """All georeferences are the same, as in files that were never placed: no n * n comparisons."""
    pairs = pairs_of([(0.0, 0.0, 1.0, 1.0)] * 20000 + [(0.5, 0.5, 1.0, 1.0)])
    assert len(pairs) == 20000
    assert connected(20001, pairs) == [list(range(20001))]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    boxes = [(*each, 1.0, 1.0) for each in rng.uniform(0, 3, (60, 2)).tolist()]
    expected = pairs_of(boxes)
    monkeypatch.setattr(overlap, "_AT_ONCE", 5)
    assert pairs_of(boxes) == expected != set()


def shares(boxes: Sequence[Box]) -> Iterator[tuple[tuple[int, int], Fraction]]:
    """The common area of all pairs, exactly, as a share of the smaller."""
    for (a, one), (b, other) in combinations(enumerate(boxes), 2):
        x, y, width, height = map(Fraction, one)
        best = Fraction(0)
        for turn in (-360, 0, 360):
            u, v, w, h = map(Fraction, other)
            across = min(x + width, u + turn + w) - max(x, u + turn)
            up = min(y + height, v + h) - max(y, v)
            if across > 0 and up > 0:
                best += across * up / min(width * height, w * h)
        yield (a, b), best


SIZES = st.sampled_from([0.001, 0.02, 0.024, 0.3, 5.0, 60.0])
BOXES = st.lists(
    st.tuples(
        st.one_of(st.integers(-180, 179), st.floats(-0.1, 0.1), st.floats(179.9, 179.999)),
        st.one_of(st.integers(-85, 25), st.floats(-0.1, 0.1)),
        SIZES,
        SIZES,
    ),
    max_size=12,
)


@given(BOXES)
def test_random_boxes_equal_a_comparison_of_all(boxes: list[Box]) -> None:
    """All pairs that are found share ground, and with them all that do are connected."""
    exact = dict(shares(boxes))
    assume(all(abs(share - Fraction(LEAST)) > 1e-6 for share in exact.values()))
    found, expected = pairs_of(boxes), {pair for pair, share in exact.items() if share > LEAST}
    assert found <= expected
    assert connected(len(boxes), found) == reached(len(boxes), expected)


Point = tuple[Fraction, Fraction]


def exact_area(one: list[Point], other: list[Point]) -> Fraction:
    """The common area of two convex polygons, counter-clockwise, in rational numbers."""
    for (x, y), (u, v) in zip([other[-1], *other[:-1]], other, strict=True):
        left = [(u - x) * (q - y) - (v - y) * (p - x) for p, q in one]
        kept: list[Point] = []
        for n in range(len(one)):
            (p, q), (r, s) = one[n - 1], one[n]
            if (left[n - 1] < 0) != (left[n] < 0):
                t = left[n - 1] / (left[n - 1] - left[n])
                kept.append((p + t * (r - p), q + t * (s - q)))
            if left[n] >= 0:
                kept.append((r, s))
        one = kept
    return sum((one[n - 1][0] * one[n][1] - one[n][0] * one[n - 1][1] for n in range(len(one))),
               Fraction(0)) / 2  # fmt: skip


@given(st.integers(0, 2**32), st.sampled_from([0.0, 179.99, -180.0]))
def test_turned_squares_equal_exact_areas(seed: int, middle: float) -> None:
    rng = np.random.default_rng(seed)
    centre, half = rng.uniform(-0.05, 0.05, (8, 1, 2)), rng.uniform(0.005, 0.03, (8, 1, 1))
    angle = rng.uniform(0, 2 * np.pi, (8, 1)) + np.pi / 2 * np.arange(4)
    corners = centre + half * np.stack([np.cos(angle), np.sin(angle)], -1)
    polygons = [[(Fraction(x), Fraction(y)) for x, y in each] for each in corners.tolist()]
    placed = corners + np.array((middle, 0))
    placed[..., 0] = (placed[..., 0] + 180) % 360 - 180
    placed[::2] = placed[::2, ::-1]  # the way around does not matter
    found = {
        tuple(sorted(pair)) for each in overlapping(placed, np.arange(8)) for pair in each.tolist()
    }
    areas = [exact_area(each, each) for each in polygons]
    for a, b in combinations(range(8), 2):
        area = exact_area(polygons[a], polygons[b])
        assert common_area(corners[[a]], corners[[b]]) == pytest.approx(float(area), abs=1e-12)
        share = area / min(areas[a], areas[b])
        if abs(share - Fraction(LEAST)) > 1e-6:
            assert ((a, b) in found) == (share > LEAST), float(share)


def planted(count: int) -> tuple[list[Box], set[tuple[int, int]]]:
    """Squares on a grid that do not touch, every hundredth with another over half of it."""
    side = int(np.ceil(np.sqrt(count)))
    boxes: list[Box] = [(-170 + 0.03 * (n % side), -60 + 0.03 * (n // side), 0.024, 0.024)
                        for n in range(count)]  # fmt: skip
    pairs = set()
    for n in range(0, count, 100):
        x, y, width, height = boxes[n]
        pairs.add((n, len(boxes)))
        boxes.append((x + width / 4, y, width / 2, height))
    return boxes, pairs


def test_many_places() -> None:
    boxes, pairs = planted(5000)
    assert pairs_of(boxes) == pairs


@pytest.mark.slow
def test_a_hundred_thousand_places_take_seconds() -> None:
    boxes, pairs = planted(100_000)
    corners = np.array([corners_of(box) for box in boxes])
    began = time.perf_counter()
    found = np.concatenate(list(overlapping(corners, np.arange(len(boxes)))))
    assert time.perf_counter() - began < 30
    assert set(map(tuple, np.sort(found, 1).tolist())) == pairs


def reached(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups by walking from each number to all that it is paired with."""
    beside: dict[int, set[int]] = {number: set() for number in range(count)}
    for a, b in pairs:
        beside[a].add(b)
        beside[b].add(a)
    groups, seen = [], set()
    for number in range(count):
        group, waiting = set(), [number]
        while waiting:
            one = waiting.pop()
            if one not in group:
                group.add(one)
                waiting += beside[one]
        if len(group) > 1 and not group & seen:
            groups.append(sorted(group))
        seen |= group
    return groups


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_groups_are_what_can_be_reached(pairs: list[tuple[int, int]]) -> None:
    assert connected(20, pairs) == reached(20, pairs)


def test_names_in_a_sentence() -> None:
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_footprints_equal_rasterio(data_dir: Path) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the independent reader is rasterio")
    warp = pytest.importorskip("rasterio.warp")
    files = [
        *sorted((data_dir / "terramesh" / "S2L2A").glob("*.tif")),
        *sorted((data_dir / "ssl4eo_s12_v1").rglob("B1.tif"))[:1],
    ]
    assert len(files) == 4
    for file in files:
        with rasterio.open(file) as image:
            width, height = image.width, image.height
            points = [image.transform * each for each in
                      ((0, 0), (width, 0), (width, height), (0, height))]  # fmt: skip
            x, y = warp.transform(image.crs, "EPSG:4326", *zip(*points, strict=True))
        expected = np.stack([x, y], 1)
        np.testing.assert_allclose(tiff_footprint(file), expected, rtol=0, atol=1e-6)


def test_file_that_says_nothing_of_its_place(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint16))
    (tmp_path / "b.tif").write_bytes(b"damaged")
    assert tiff_footprint(tmp_path / "a.tif") is None
    assert tiff_footprint(tmp_path / "b.tif") is None


@pytest.mark.parametrize(
    ("east", "north", "epsg"),
    [(500e3, 5000e3, 32633), (600e3, 7500e3, 32633), (300e3, 100e3, 32601), (350e3, 4000e3, 32760)],
)
def test_squares_lie_on_the_grid_of_utm(east: float, north: float, epsg: int) -> None:
    def place(x: float, y: float) -> tuple[float, float]:
        found = to_degrees(east + x, north + y, epsg)
        assert found is not None
        return found

    expected = [
        place(*each) for each in ((-1320, 1320), (1320, 1320), (1320, -1320), (-1320, -1320))
    ]
    np.testing.assert_allclose(square(place(0, 0), 2640), expected, rtol=0, atol=3e-5)
    # a neighbour on the grid is not taken for an overlap
    both = np.array([square(place(0, 0), 2640), square(place(2640, 0), 2640)])
    assert sum(map(len, overlapping(both, np.arange(2)))) == 0
