"""Labels of generated places against the scenes they come from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from seamo_fast.data.demo.dataset import demo_shards
from seamo_fast.data.demo.scene import CLOUDY, VARIED, Cover, Scene, make_pair, make_scene
from seamo_fast.data.shards import ShardSet
from seamo_fast.errors import DataError
from seamo_fast.tasks.datasets import (
    IGNORE,
    DemoChange,
    DemoCover,
    DemoCrops,
    DemoFields,
    LabelledTile,
    collate,
)

PLACES, SIZE, SEED = 20, 48, 3
SMALL: dict[str, Any] = {"places": PLACES, "size": SIZE, "seed": SEED}
KINDS = (DemoCover, DemoCrops, DemoFields, DemoChange)
LAND = {
    "Cropland": "CEREAL MAIZE BEET BARLEY OATS POTATO RYE_MAIZE",
    "Grassland": "MEADOW PASTURE",
    "Broad-leaved forest": "DECIDUOUS",
    "Needle-leaved forest": "EVERGREEN",
    "Water": "RIVER LAKE",
    "Built-up": "ROAD TILES BRIGHT_ROOF GREY_ROOF GARDEN",
    "Bare rock": "ROCK",
}
# greenness in spring, summer, autumn and winter: growing, in part, or not
GROWTH = {
    "Winter wheat": ("CEREAL", "+-.."),
    "Maize": ("MAIZE", "-+.-"),
    "Sugar beet": ("BEET", "-++-"),
    "Meadow": ("MEADOW", "++++"),
    "Winter barley, then mustard": ("BARLEY", "+-+-"),
    "Oats": ("OATS", "----"),
    "Potatoes": ("POTATO", "-+-."),
    "Rye, then maize": ("RYE_MAIZE", "++-."),
}


def scene(number: int, **kwargs: Any) -> Scene:
    return make_scene(SEED, 2**32 + number, size=SIZE, seasons=4, farming=VARIED, **kwargs)


def is_any(cover: np.ndarray, names: str) -> np.ndarray:
    return np.isin(cover, [Cover[name] for name in names.split()])


def number_of(item: LabelledTile) -> int:
    """The place that an item shows."""
    return int(item.id.split("-")[1])


def digest(item: LabelledTile) -> str:
    checksum = hashlib.sha256(repr((item.id, item.split, item.dates, item.valid)).encode())
    arrays = [grid for grids in item.bands.values() for grid in grids]
    for each in (*arrays, item.label, item.mask):
        checksum.update(b"" if each is None else each.numpy().tobytes())
    return checksum.hexdigest()


@pytest.fixture(scope="module")
def items() -> dict[type, list[LabelledTile]]:
    return {
        kind: [dataset.read(n) for n in range(len(dataset))]
        for kind in KINDS
        for dataset in [kind(**SMALL)]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_items_do_not_depend_on_how_many_places_there_are(
    kind: type, items: dict[type, list[LabelledTile]], tmp_path: Path
) -> None:
    """Nor on the folder, the order in which they are read, or what else was made before."""
    few = kind(tmp_path, **SMALL | {"places": 5})
    again = [digest(few.read(n)) for n in reversed(range(len(few)))][::-1]
    assert again == [digest(item) for item in items[kind][: len(few)]]
    assert len(set(again)) == len(few) > 1
    other = kind(tmp_path, **SMALL | {"places": 5, "seed": SEED + 1})
    assert not {digest(other.read(n)) for n in range(len(other))} & set(again)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_share_no_place(kind: type, items: dict[type, list[LabelledTile]]) -> None:
    dataset = kind(**SMALL)
    assert dataset.parts == ("train", "val", "test")
    found = {}
    for part in dataset.parts:
        members = kind(split=part, **SMALL)
        read = [members.read(n) for n in range(len(members))]
        assert [item.id for item in read] == [i.id for i in items[kind] if i.split == part]
        found[part] = {number_of(item) for item in read}
    assert not found["train"] & found["val"] | found["train"] & found["test"]
    assert {number % 5 for number in found["train"]} <= {0, 1, 2}
    assert {number % 5 for number in found["val"]} == {3}
    assert {number % 5 for number in found["test"]} == {4}
    if kind in (DemoCover, DemoChange):
        assert set().union(*found.values()) == set(range(PLACES))


def test_images_are_what_the_sensors_saw_of_the_scene(
    items: dict[type, list[LabelledTile]],
) -> None:
    missing = 0
    for item in items[DemoCover]:
        seen = scene(number_of(item))
        for name, days in (("s2l2a", seen.optical_dates), ("s1grd", seen.radar_dates)):
            there = item.valid[name]
            missing += there.count(False)
            expected = [day if valid else None for day, valid in zip(days, there, strict=True)]
            assert item.dates[name] == expected
            for grid in item.bands[name]:
                assert not grid[~torch.tensor(there)].any()
        radar = seen.radar[item.valid["s1grd"]]
        np.testing.assert_array_equal(item.bands["s1grd"][0][item.valid["s1grd"]], radar)
        blue = item.bands["s2l2a"][0][item.valid["s2l2a"], 0].numpy()
        exact = 1e4 * seen.optical[item.valid["s2l2a"], 1]
        known = blue > 0  # a stripe may be nodata
        assert np.abs(blue - exact)[known].max() < 6 * (16 + 0.004 * exact.max())
        assert known.mean() > 0.6
    assert 0 < missing < 0.1 * PLACES * 8


def test_cover_is_that_of_the_scene(items: dict[type, list[LabelledTile]]) -> None:
    assert DemoCover(**SMALL).classes == tuple(LAND)
    seen = set()
    for item in items[DemoCover]:
        assert item.mask is not None
        assert item.mask.dtype == torch.int64
        assert item.label is None
        cover = scene(number_of(item)).cover
        for number, names in enumerate(LAND.values()):
            np.testing.assert_array_equal(item.mask == number, is_any(cover, names))
        seen |= set(item.mask.unique().tolist())
    assert seen == set(range(len(LAND)))


def test_crops_are_labelled_in_fields_alone(items: dict[type, list[LabelledTile]]) -> None:
    assert DemoCrops(**SMALL).classes == tuple(GROWTH)
    fields = " ".join(name for name, _ in GROWTH.values())
    covers = [scene(number).cover for number in range(PLACES)]
    with_fields = [n for n, cover in enumerate(covers) if is_any(cover, fields).any()]
    assert [number_of(item) for item in items[DemoCrops]] == with_fields != list(range(PLACES))
    for item in items[DemoCrops]:
        assert item.mask is not None
        cover = covers[number_of(item)]
        np.testing.assert_array_equal(item.mask == IGNORE, ~is_any(cover, fields))
        for number, (name, _) in enumerate(GROWTH.values()):
            np.testing.assert_array_equal(item.mask == number, is_any(cover, name))


def test_crops_grow_when_their_names_say() -> None:
    dataset = DemoCrops(places=60, size=SIZE)
    greens: list[list[np.ndarray]] = [[] for _ in GROWTH]
    for n in range(len(dataset)):
        item = dataset.read(n)
        assert item.mask is not None
        if not all(item.valid["s2l2a"]):
            continue
        red, infrared = (item.bands["s2l2a"][0][:, band].double() for band in (2, 3))
        index = ((infrared - red) / (infrared + red).clamp(min=1)).numpy()
        for number, green in enumerate(greens):
            green.append(index[:, (item.mask == number).numpy()])
    for (_, course), green in zip(GROWTH.values(), greens, strict=True):
        medians = np.median(np.concatenate(green, axis=1), axis=1)
        low, high = (np.array([sign == mark for sign in course]) for mark in "-+")
        assert (medians[low] < 0.35).all(), course
        assert (medians[high] > 0.38).all(), course


def test_fields_are_in_the_middle_of_their_image(items: dict[type, list[LabelledTile]]) -> None:
    crops = {number_of(item): item for item in items[DemoCrops]}
    edge, counts = SIZE // 2, np.zeros(len(GROWTH), int)
    assert len(items[DemoFields]) > len(crops)
    for item in items[DemoFields]:
        place = crops[number_of(item)]
        assert place.mask is not None
        assert item.label is not None
        assert item.mask is None
        (top, left), *rest = places_of(item, place)
        assert not rest
        assert top % 6 == left % 6 == 0
        for name, grids in item.bands.items():
            for grid, whole in zip(grids, place.bands[name], strict=True):
                step = SIZE // whole.shape[-1]
                rows, columns = (slice(at // step, (at + edge) // step) for at in (top, left))
                torch.testing.assert_close(grid, whole[..., rows, columns], rtol=0, atol=0)
        field = scene(number_of(item)).field
        seen = field[top : top + edge, left : left + edge]
        numbers, sizes = np.unique(seen[seen >= 0], return_counts=True)
        largest = numbers[sizes.argmax()]
        assert sizes.max() >= edge**2 / 4
        assert (place.mask.numpy()[field == largest] == int(item.label)).all()
        for at, where in zip((top, left), np.nonzero(field == largest), strict=True):
            off = (where.min() + where.max() + 1) / 2 - (at + edge / 2)
            assert abs(off) < 6 or (at == 0 and off < 0) or (at == SIZE - edge and off > 0)
        counts[int(item.label)] += 1
    assert (counts > 0).all()


def places_of(item: LabelledTile, place: LabelledTile) -> list[tuple[int, int]]:
    """Where in a place an image is."""
    seen, whole = (each.bands["s1grd"][0].sum(dim=(0, 1)) for each in (item, place))
    windows = whole.unfold(0, len(seen), 1).unfold(1, len(seen), 1)
    return [tuple(at) for at in (windows == seen).all(dim=-1).all(dim=-1).nonzero().tolist()]


def test_change_is_where_the_covers_differ_but_for_crops(
    items: dict[type, list[LabelledTile]],
) -> None:
    fields = " ".join(name for name, _ in GROWTH.values())
    rotated = kept = 0
    shares = []
    for item in items[DemoChange]:
        before, after = make_pair(SEED, 2**33 + number_of(item), size=SIZE)
        farmed = is_any(before.cover, fields) & is_any(after.cover, fields)
        assert item.mask is not None
        np.testing.assert_array_equal(item.mask, (before.cover != after.cover) & ~farmed)
        rotated += int((farmed & (before.cover != after.cover)).sum())
        kept += int((farmed & (before.cover == after.cover)).sum())
        shares.append(float(item.mask.double().mean()))
        for name, first, later in (
            ("s2l2a", before.optical_dates, after.optical_dates),
            ("s1grd", before.radar_dates, after.radar_dates),
        ):
            expected = zip((*first, *later), item.valid[name], strict=True)
            assert item.dates[name] == [day if valid else None for day, valid in expected]
            assert 1 <= later[0].year - first[0].year <= 2
            assert {first[0].month, later[0].month} <= {6, 7, 8}
    assert rotated > kept
    assert 0.05 < np.mean(shares) < 0.3
    assert min(shares) == 0


def test_pixels_that_did_not_change_look_alike_and_others_do_not() -> None:
    ratios = []
    for number in range(30):
        before, after = make_pair(SEED, 2**33 + number, size=SIZE)
        fields = np.maximum(before.field, after.field) >= 0
        clear = sum(each.cloud[0] + each.shadow[0] for each in (before, after)) < 0.01
        changed = (before.cover != after.cover) & ~fields
        usable = clear & ~fields
        off = np.abs(before.optical[0] - after.optical[0]).mean(axis=0)
        if min((usable & changed).sum(), (usable & ~changed).sum()) > 50:
            ratios.append(off[usable & changed].mean() / off[usable & ~changed].mean())
    assert len(ratios) > 5
    assert np.median(ratios) > 3


@pytest.mark.parametrize("seasons", [(0,), (3,), (0, 1), (0, 2, 3)])
@pytest.mark.parametrize("names", [("s1grd",), ("s1grd", "s2l2a")])
def test_seasons_and_modalities_can_be_chosen(
    seasons: tuple[int, ...], names: tuple[str, ...], items: dict[type, list[LabelledTile]]
) -> None:
    dataset = DemoCrops(**SMALL, seasons=seasons, modalities=names)
    assert tuple(modality.name for modality in dataset.modalities) == names
    assert all(modality.mean is None for modality in dataset.modalities)
    for n, whole in enumerate(items[DemoCrops][:8]):
        item = dataset.read(n)
        assert tuple(item.bands) == names
        assert item.mask is not None
        assert whole.mask is not None
        torch.testing.assert_close(item.mask, whole.mask, rtol=0, atol=0)
        for name in names:
            assert item.dates[name] == [whole.dates[name][t] for t in seasons]
            assert item.valid[name] == [whole.valid[name][t] for t in seasons]
            for grid, other in zip(item.bands[name], whole.bands[name], strict=True):
                torch.testing.assert_close(grid, other[list(seasons)], rtol=0, atol=0)


def test_many_clouds_hide_the_same_ground() -> None:
    usual, many = (DemoCrops(**SMALL, clouds=clouds) for clouds in ("usual", "many"))
    for n in range(len(usual)):
        clear, cloudy = usual.read(n), many.read(n)
        assert (clear.id, clear.valid, clear.dates) == (cloudy.id, cloudy.valid, cloudy.dates)
        assert torch.equal(clear.mask, cloudy.mask)
        assert torch.equal(clear.bands["s1grd"][0], cloudy.bands["s1grd"][0])
    share = [
        np.mean([scene(n, **kwargs).cloud > 0.3 for n in range(PLACES)])
        for kwargs in ({}, {"clouds": CLOUDY})
    ]
    assert share[0] < 0.12 < 0.2 < share[1]


def test_four_seasons_tell_crops_that_one_season_does_not() -> None:
    """By least squares from the values of a pixel."""
    dataset = DemoCrops(places=100, size=SIZE, modalities=("s2l2a",))
    (known, crops), (new, expected) = (pixels(dataset.part(part)) for part in ("train", "test"))
    accuracies = []
    for seasons in ([0], [1], [2], [3], [0, 1, 2, 3]):
        train, test = (part[:, seasons].reshape(len(part), -1) for part in (known, new))
        train, test = (
            np.c_[(x - train.mean(axis=0)) / train.std(axis=0), x[:, 0] ** 0] for x in (train, test)
        )
        gram = train.T @ train + 3 * np.eye(train.shape[1])
        weight = np.linalg.solve(gram, train.T @ np.eye(len(GROWTH))[crops])
        accuracies.append(((test @ weight).argmax(axis=1) == expected).mean())
    assert max(accuracies[:4]) < 0.6
    assert accuracies[4] > max(accuracies[:4]) + 0.15, accuracies


def pixels(dataset: DemoCrops) -> tuple[np.ndarray, np.ndarray]:
    """What 30 pixels of each place hold, float64 [n, T, 12], and their crops [n]."""
    values, labels = [], []
    for n in range(len(dataset)):
        item = dataset.read(n)
        assert item.mask is not None
        rows, columns = (item.mask >= 0).numpy().nonzero()
        chosen = np.random.default_rng(n).permutation(len(rows))[:30]
        rows, columns = rows[chosen], columns[chosen]
        labels.append(item.mask[rows, columns].numpy())
        steps = [(grid.double().numpy(), SIZE // grid.shape[-1]) for grid in item.bands["s2l2a"]]
        seen = [grid[..., rows // step, columns // step] for grid, step in steps]
        values.append(np.moveaxis(np.concatenate(seen, axis=1), -1, 0))
    return np.concatenate(values), np.concatenate(labels)


@pytest.mark.parametrize("kind", KINDS)
def test_batches(kind: type, items: dict[type, list[LabelledTile]]) -> None:
    dataset = kind(**SMALL)
    for batch in DataLoader(dataset, batch_size=4, collate_fn=collate):
        assert batch.tiles.modalities == ("s2l2a", "s1grd")
        for name, grids in batch.tiles.bands.items():
            first = items[kind][int(batch.tiles.ids[0])].bands[name]
            assert [grid[0].tolist() for grid in grids] == [grid.tolist() for grid in first]
        if kind is DemoFields:
            assert batch.labels.dtype == torch.int64
            assert batch.masks is None
        else:
            assert batch.masks.shape == (len(batch.names), SIZE, SIZE)
            assert batch.labels is None
    assert dataset.task == {DemoFields: "classes", DemoChange: "change"}.get(kind, "mask")


def test_workers_give_the_same_batches() -> None:
    dataset = DemoFields(**SMALL)
    masks = [
        torch.cat(
            [batch.labels for batch in DataLoader(dataset, 8, collate_fn=collate, num_workers=n)]
        )
        for n in (0, 1)
    ]
    assert torch.equal(*masks)


def test_no_place_is_one_of_the_demo_scenes() -> None:
    shards = ShardSet(demo_shards(samples=PLACES, size=SIZE, seed=SEED))
    demo = {shards.read(n).bands["s1grd"][0].tobytes() for n in range(PLACES)}
    dataset = DemoCover(**SMALL)
    ours = {dataset.read(n).bands["s1grd"][0].numpy().tobytes() for n in range(PLACES)}
    assert len(demo | ours) == 2 * PLACES


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "another", "another dtype"])
def test_broken_labels_are_made_again(damage: str, tmp_path: Path) -> None:
    arguments = {"places": 5, "size": 12}
    expected = digest(DemoCover(tmp_path, **arguments).read(1))
    (path,) = tmp_path.glob("*/labels.npy")
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "another dtype":
        np.save(path, np.zeros((5, 2, 12, 12), np.int16))
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        np.save(path, np.zeros((5, 2, 6, 6), np.uint16))
    assert digest(DemoCover(tmp_path, **arguments).read(1)) == expected


SIZES = "size must be a multiple of 6, so that its {} pixels of 10 m divide into pixels of 60 m"


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (DemoCover, {"places": 0}, "places must be at least 1, but got 0"),
        (DemoChange, {"places": -1}, "places must be at least 1, but got -1"),
        (DemoCrops, {"size": 50}, SIZES.format(50)),
        (DemoChange, {"size": 0}, SIZES.format(0)),
        (DemoCover, {"seasons": ()}, "seasons must be some of 0, 1, 2, 3, ascending, but got []"),
        (
            DemoFields,
            {"seasons": (4,)},
            "seasons must be some of 0, 1, 2, 3, ascending, but got [4]",
        ),
        (
            DemoCrops,
            {"seasons": (1, 0)},
            "seasons must be some of 0, 1, 2, 3, ascending, but got [1, 0]",
        ),
        (
            DemoCrops,
            {"seasons": (1, 1)},
            "seasons must be some of 0, 1, 2, 3, ascending, but got [1, 1]",
        ),
        (DemoCover, {"modalities": ()}, "modalities must be some of s2l2a, s1grd, but got []"),
        (
            DemoChange,
            {"modalities": ("s2",)},
            "modalities must be some of s2l2a, s1grd, but got ['s2']",
        ),
        (DemoFields, {"clouds": "none"}, "clouds must be usual or many, but got 'none'"),
    ],
)
def test_impossible_arguments_are_refused(
    kind: type, wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(tmp_path, **{"places": 5, "size": 12} | wrong)


def test_errors_name_the_part_and_the_cache(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="DemoCover has no items in 'dev'; its parts: train, val, test"
    ):
        DemoCover(tmp_path, "dev", places=5, size=12)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write .* SEAMO_FAST_CACHE"):
        DemoChange(tmp_path / "file", places=1, size=12)
