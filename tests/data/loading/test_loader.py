"""The loader: batches are a function of the seed and their number, whatever reads them."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast import data
from seamo_fast.data import ShardSet, TileLoader
from seamo_fast.data.loading.stream import Buffers, Part, ahead
from seamo_fast.errors import DataError
from seamo_fast.modalities import MISSING_DATE
from seamo_fast.randomness import generator
from seamo_fast.tiles import TileBatch

MODALITIES = ["s1grd", "optic"]


def take(shards: ShardSet, count: int, **options: Any) -> list[TileBatch]:
    settings = {"batch_size": 4, "seed": 7, "modalities": MODALITIES, "seasons": 3, **options}
    return list(islice(TileLoader(shards, **settings), count))


def assert_same(a: TileBatch, b: TileBatch) -> None:
    assert (a.modalities, a.complete) == (b.modalities, b.complete)
    for field in ("valid", "dates", "ids", "epochs"):
        assert torch.equal(getattr(a, field), getattr(b, field))
    for name in a.modalities:
        for one, other in zip(a.bands[name], b.bands[name], strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)


def test_only_the_loader_is_imported_late() -> None:
    assert data.TileLoader is TileLoader
    with pytest.raises(AttributeError, match=r"'seamo_fast.data' has no attribute 'Loader'"):
        data.Loader  # noqa: B018


def test_batches_hold_the_stored_samples(shards: ShardSet) -> None:
    for batch in take(shards, 6):
        batch.check()
        assert batch.bands["optic"][0].dtype == torch.uint16
        assert batch.bands["s1grd"][0].dtype == torch.float32
        for row, index in enumerate(batch.ids.tolist()):
            sample = shards.read(index, MODALITIES)
            np.testing.assert_array_equal(batch.valid[row].numpy(), sample.valid)
            np.testing.assert_array_equal(batch.dates[row].numpy(), sample.dates)
            for name in MODALITIES:
                for grid, stored in zip(batch.bands[name], sample.bands[name], strict=True):
                    assert grid[row].numpy().tobytes() == stored.tobytes()


def test_batches_are_complete_where_no_sample_lacks_a_group(
    write_shards: Callable[..., Path],
) -> None:
    """All alike: a compiled model would meet two kinds of batches otherwise."""
    batches = take(ShardSet(write_shards()), 20, batch_size=1)
    assert any(batch.valid.all() for batch in batches)
    assert not any(batch.complete for batch in batches)
    whole = ShardSet(write_shards(samples=1, name="whole"))
    assert all(batch.complete for batch in take(whole, 3, batch_size=1))


def test_every_sample_once_an_epoch_in_another_order(shards: ShardSet) -> None:
    stream = [
        (epoch, index)
        for batch in take(shards, 15, batch_size=2)
        for epoch, index in zip(batch.epochs.tolist(), batch.ids.tolist(), strict=True)
    ]
    orders = [[index for e, index in stream if e == epoch] for epoch in range(3)]
    assert [epoch for epoch, _ in stream] == [0] * 10 + [1] * 10 + [2] * 10
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert orders[2] == generator(7, "order", 2).permutation(10).tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_no_difference(shards: ShardSet, workers: int) -> None:
    options = {"batch_size": 3, "seasons": 2}
    expected = take(shards, 7, **options)
    for one, other in zip(expected, take(shards, 7, workers=workers, **options), strict=True):
        assert_same(one, other)


def test_start_continues_the_stream(shards: ShardSet) -> None:
    whole = take(shards, 9, batch_size=3, seasons=1)
    for start in (1, 4, 8):
        resumed = take(shards, 9 - start, batch_size=3, seasons=1, start=start)
        for one, other in zip(whole[start:], resumed, strict=True):
            assert_same(one, other)


def test_loader_can_be_iterated_again(shards: ShardSet) -> None:
    loader = TileLoader(shards, batch_size=4, seed=7, modalities=MODALITIES, seasons=3, start=2)
    assert_same(next(iter(loader)), next(iter(loader)))


def test_global_random_state_is_left_alone(shards: ShardSet) -> None:
    before = torch.get_rng_state()
    take(shards, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_ranks_split_each_batch(shards: ShardSet) -> None:
    whole = take(shards, 5, batch_size=6)
    parts = [take(shards, 5, batch_size=6, rank=rank, world=3) for rank in range(3)]
    for number, batch in enumerate(whole):
        ids = torch.cat([part[number].ids for part in parts])
        assert torch.equal(ids, batch.ids)
        optic = torch.cat([part[number].bands["optic"][1].int() for part in parts])
        assert torch.equal(optic, batch.bands["optic"][1].int())


def test_fraction_is_a_fixed_subset(shards: ShardSet) -> None:
    loader = TileLoader(
        shards, batch_size=2, seed=7, modalities=MODALITIES, seasons=3, fraction=0.4
    )
    assert loader.samples == 4
    counts = Counter(i for batch in islice(loader, 10) for i in batch.ids.tolist())
    assert sorted(counts.values()) == [5, 5, 5, 5]
    other = Counter(
        i
        for batch in take(shards, 2, batch_size=2, fraction=0.4, seed=8)
        for i in batch.ids.tolist()
    )
    assert counts.keys() != other.keys()
    tiny = TileLoader(shards, batch_size=1, seed=0, modalities=MODALITIES, seasons=3, fraction=0.01)
    assert tiny.samples == 1


def test_chosen_seasons_ascend_and_vary(shards: ShardSet) -> None:
    seen: dict[int, set[tuple[int, ...]]] = {}
    for batch in take(shards, 60, seasons=2):
        for row, index in enumerate(batch.ids.tolist()):
            stored = shards.read(index, MODALITIES)
            dates = batch.dates[row, :, 1].tolist()
            matches = [
                chosen
                for chosen in ((0, 1), (0, 2), (1, 2))
                if np.array_equal(stored.valid[list(chosen)], batch.valid[row].numpy())
                and stored.dates[list(chosen), 1].tolist() == dates
                and np.array_equal(
                    stored.bands["s1grd"][0][list(chosen)], batch.bands["s1grd"][0][row].numpy()
                )
            ]
            assert matches
            seen.setdefault(index, set()).add(matches[0])
    assert all(seen[index] == {(0, 1), (0, 2), (1, 2)} for index in range(0, 10, 2))


def test_seasons_with_a_valid_group_come_first(shards: ShardSet) -> None:
    # Odd samples lack "optic" at season index % 3.
    for batch in take(shards, 60, seasons=1, modalities=["optic"]):
        assert batch.valid.all()
    for batch in take(shards, 30, seasons=3, modalities=["optic"], batch_size=1):
        assert batch.valid.all() == (int(batch.ids[0]) % 2 == 0)


class TestBadRecords:
    """A damaged record is skipped and counted, or stops the run."""

    @pytest.fixture
    def damaged(self, write_shards: Callable[..., Path]) -> ShardSet:
        shards = ShardSet(write_shards())
        file = shards.path / "shard-00001" / "optic_10m.npy"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        return shards

    @pytest.mark.parametrize("workers", [0, 2])
    def test_skip(self, damaged: ShardSet, workers: int) -> None:
        loader = TileLoader(
            damaged, batch_size=2, seed=7, modalities=MODALITIES, seasons=3, workers=workers
        )
        found = 0
        for batch in islice(loader, 15):
            batch.check()
            for row in (batch.ids == 7).nonzero().flatten().tolist():
                found += 1
                assert not batch.complete
                assert not batch.valid[row].any()
                assert (batch.dates[row] == MISSING_DATE).all()
                assert not any(grid[row].int().any() for grid in batch.bands["optic"])
            for row in (batch.ids == 6).nonzero().flatten().tolist():
                assert batch.valid[row].all()
        assert found == 3
        (message,) = loader.bad_records
        assert "shard-00001 record 3 (place-7) fails the checksum of optic_10m.npy" in message

    @pytest.mark.parametrize("workers", [0, 1])
    def test_stop(self, damaged: ShardSet, workers: int) -> None:
        message = r"^[^\n]*record 3 \(place-7\) fails the checksum[^\n]*$"
        with pytest.raises(DataError, match=message):
            take(damaged, 5, on_bad="stop", workers=workers)

    @pytest.mark.parametrize("batch_size", [2, 8])
    def test_records_that_are_all_lost_end_it(
        self, write_shards: Callable[..., Path], batch_size: int
    ) -> None:
        shards = ShardSet(write_shards())
        for file in shards.path.rglob("records.json"):
            file.write_bytes(b"[]")
        with pytest.raises(DataError, match=rf"^all {len(shards)} samples are damaged"):
            take(shards, 20, batch_size=batch_size)

    def test_it_makes_a_batch_incomplete(self) -> None:
        part = Part([(0, 0), (0, 1)], seasons=1, modalities=1, complete=True)
        part.valid[:] = True
        assert part.batch(("optic",), {}).complete
        part.damage(1, "lost")
        assert not part.batch(("optic",), {}).complete

    def test_unused_modality_and_no_verification(self, damaged: ShardSet) -> None:
        take(damaged, 5, on_bad="stop", modalities=["s1grd"])
        take(damaged, 5, on_bad="stop", verify=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be a positive multiple of the 1 ranks, but got 0"),
        ({"batch_size": 3, "world": 2}, r"positive multiple of the 2 ranks, but got 3"),
        ({"rank": 2, "world": 2}, r"rank must be in \[0, 2\), but got 2"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], but got 0.0"),
        ({"workers": -1}, r"workers must be at least 0 and prefetch at least 1, but got -1 and 2"),
        ({"prefetch": 0}, r"workers must be at least 0 and prefetch at least 1, but got 0 and 0"),
        ({"on_bad": "ignore"}, r"on_bad must be 'skip' or 'stop', but got 'ignore'"),
    ],
)
def test_impossible_arguments(shards: ShardSet, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        take(shards, 0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ["s2l2a"]}, r"has no modality 's2l2a'; it holds optic, s1grd"),
        ({"seasons": 4}, r"holds 3 seasons a sample, but 4 were asked for; set fewer"),
    ],
)
def test_what_the_shards_do_not_hold(
    shards: ShardSet, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        take(shards, 0, **options)


def test_memory_is_used_again_but_never_while_it_is_seen(shards: ShardSet) -> None:
    options = {"batch_size": 4, "seed": 7, "modalities": MODALITIES, "seasons": 3}
    expected = [batch.bands["optic"][0].clone() for batch in take(shards, 12, workers=0)]
    places, kept = set(), {}
    for number, batch in enumerate(islice(TileLoader(shards, workers=1, **options), 12)):
        grid = batch.bands["optic"][0]
        assert torch.equal(grid, expected[number])
        places.add(grid.data_ptr())
        if number in (2, 5):
            kept[number] = grid[1:3, 0, 1]  # a view keeps what it looks at
        del batch, grid
    assert len(places) < 9
    for number, view in kept.items():
        assert torch.equal(view, expected[number][1:3, 0, 1])


def test_buffers_forget_the_oldest() -> None:
    buffers = Buffers(2)
    held = [buffers.take((3,), "uint8") for _ in range(4)]
    assert len({array.ctypes.data for array in held}) == 4
    idle = held.pop().ctypes.data
    assert buffers.take((3,), "uint8").ctypes.data == idle
    assert buffers.take((3,), "float32").dtype == np.float32


@pytest.mark.parametrize("gpu", [False, True])
def test_batches_are_page_locked_where_a_gpu_copies_them(
    shards: ShardSet, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    pinned: list[TileBatch] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(TileBatch, "pin_memory", lambda batch: (pinned.append(batch), batch)[1])
    batches = take(shards, 3)
    assert [id(batch) for batch in pinned] == [id(batch) for batch in batches] * gpu


def test_buffers_do_not_grow() -> None:
    buffers = Buffers(2)
    held = [buffers.take((3,), "uint8") for _ in range(5)]
    alive = [weakref.ref(array) for array in held]
    held.clear()
    gc.collect()
    assert [ref() is not None for ref in alive] == [False, False, False, True, True]
    again = [buffers.take((3,), "uint8") for _ in range(2)]
    assert {id(array) for array in again} == {id(ref()) for ref in alive[3:]}


def test_workers_read_ahead_without_being_asked() -> None:
    made: Queue[int] = Queue()
    results = ahead(lambda number: (made.put(number), number)[1], count(), 1, 2)
    assert next(results) == 0
    assert [made.get(timeout=30) for _ in range(3)] == [0, 1, 2]
    results.close()


def test_nothing_is_read_ahead_without_workers() -> None:
    made: list[int] = []
    results = ahead(lambda number: (made.append(number), number)[1], count(), 0, 2)
    assert [next(results), next(results)] == made == [0, 1]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_ahead_keeps_order_and_bounds(workers: int) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        if number == 9:
            raise DataError("nine")
        return number

    results = ahead(make, count(2), workers, 2)
    assert list(islice(results, 3)) == [2, 3, 4]
    assert len(made) <= 3 + workers * 2 + 1
    assert list(islice(results, 4)) == [5, 6, 7, 8]
    with pytest.raises(DataError, match="nine"):
        next(results)
