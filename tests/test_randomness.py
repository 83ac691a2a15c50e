"""The counter-based generator is a pure function of its words."""

from __future__ import annotations

import numpy as np

from seamo_fast.randomness import generator


def test_equal_words_give_equal_streams() -> None:
    first = generator(3, "order", 7).random(100)
    generator(3, "other").random(5)
    np.testing.assert_array_equal(first, generator(3, "order", 7).random(100))


def test_any_other_word_gives_another_stream() -> None:
    words: list[tuple[int | str, ...]] = [
        (), (0,), (1,), ("order",), ("order", 0), ("order", 1), (0, "order"), (-1,), (2**40,)
    ]  # fmt: skip
    draws = [generator(seed, *word).integers(2**63) for seed in (0, 1, -1) for word in words]
    assert len(set(draws)) == len(draws)


def test_streams_of_neighbouring_counters_are_uncorrelated() -> None:
    draws = np.stack([generator(0, "views", 0, i).random(64) for i in range(256)])
    assert abs(draws.mean() - 0.5) < 0.01
    correlation = np.corrcoef(draws)[np.triu_indices(256, 1)]
    assert abs(correlation.mean()) < 0.002
