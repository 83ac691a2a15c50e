"""Nearest neighbours: by cosine, near ones weigh more, validation chooses how many."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seamo_fast.tasks.evaluation.scores import score_of
from seamo_fast.tasks.probes import knn as module
from seamo_fast.tasks.probes.knn import NEIGHBOURS, TEMPERATURE, fit_knn
from seamo_fast.tasks.probes.subsets import few_of_each, share_of


def clouds(count: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    return F.one_hot(labels, 8).float() * 2 + noise * torch.randn(
        count, 8, generator=rng
    ) + 5, labels


def test_it_is_what_its_formula_says() -> None:
    train, val, test = clouds(40, 1.0), clouds(20, 1.0, 1), clouds(7, 1.0, 2)
    knn = fit_knn(train, val, 3, score_of)
    mean = train[0].mean(0)
    for query, scores in zip(test[0], knn.scores(test[0]), strict=True):
        cosines = F.cosine_similarity(train[0] - mean, (query - mean)[None])
        nearest = cosines.argsort(descending=True)[: knn.k]
        expected = torch.zeros(3)
        for number in nearest:
            expected[train[1][number]] += (cosines[number] / TEMPERATURE).exp()
        torch.testing.assert_close(scores, expected / expected.sum(), rtol=1e-3, atol=1e-5)


def test_validation_chooses_few_for_clean_and_many_for_noisy_features() -> None:
    assert fit_knn(clouds(90, 0.01), clouds(30, 0.01, 1), 3, score_of).k == 1
    assert fit_knn(clouds(600, 2.0), clouds(600, 2.0, 1), 3, score_of).k >= 20


def test_scale_and_offset_of_all_features_do_not_matter() -> None:
    train, val, test = clouds(60, 0.8), clouds(30, 0.8, 1), clouds(30, 0.8, 2)
    plain = fit_knn(train, val, 3, score_of).scores(test[0])
    moved = fit_knn((train[0] * 7 - 3, train[1]), (val[0] * 7 - 3, val[1]), 3, score_of)
    torch.testing.assert_close(moved.scores(test[0] * 7 - 3), plain, rtol=1e-3, atol=1e-4)


def test_flags_are_shares_of_the_votes() -> None:
    train, val = clouds(60, 0.3), clouds(30, 0.3, 1)
    flags = [torch.stack([part[1] == 0, part[1] < 2], dim=1).long() for part in (train, val)]
    knn = fit_knn((train[0], flags[0]), (val[0], flags[1]), 2, score_of)
    assert ((knn.scores(val[0]) > 0.5).long() == flags[1]).all()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    knn = fit_knn(clouds(60, 0.8), clouds(30, 0.8, 1), 3, score_of)
    queries = clouds(11, 0.8, 2)[0]
    whole = knn.scores(queries)
    monkeypatch.setattr(module, "_QUERIES_AT_ONCE", 4)
    torch.testing.assert_close(knn.scores(queries), whole)


def test_fewer_items_than_neighbours() -> None:
    knn = fit_knn(clouds(4, 0.1), clouds(3, 0.1, 1), 3, score_of)
    assert knn.k in NEIGHBOURS
    assert knn.scores(clouds(5, 0.1, 2)[0]).isfinite().all()


def test_a_share_is_taken_within_each_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2])
    chosen = share_of(labels, 0.1, 0, "train")
    assert labels[chosen].bincount().tolist() == [5, 2, 1]
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert torch.equal(chosen, share_of(labels, 0.1, 0, "train"))
    assert not torch.equal(chosen, share_of(labels, 0.1, 1, "train"))
    assert share_of(labels, 1, 0, "train").tolist() == list(range(71))


def test_more_shots_include_the_fewer() -> None:
    labels = torch.arange(60) % 3
    one, five = (few_of_each(labels, 3, k, 0, "train", 0) for k in (1, 5))
    assert labels[one].bincount().tolist() == [1, 1, 1]
    assert labels[five].bincount().tolist() == [5, 5, 5]
    assert set(one.tolist()) < set(five.tolist())
    other = few_of_each(labels, 3, 5, 0, "train", 1)
    assert not torch.equal(other, five)
    assert len(few_of_each(labels, 3, 100, 0, "train", 0)) == 60


def test_shots_of_flags_have_each_class() -> None:
    flags = torch.zeros(30, 3, dtype=torch.int64)
    flags[::2, 0] = flags[::3, 1] = flags[5, 2] = 1
    chosen = few_of_each(flags, 3, 2, 0, "train", 0)
    assert (flags[chosen].sum(dim=0) >= torch.tensor([2, 2, 1])).all()
    assert len(chosen) <= 5
