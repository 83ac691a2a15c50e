"""Nearest neighbours among the training features, weighted by how near they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS: Final = (1, 3, 5, 10, 20, 50, 100)
TEMPERATURE: Final = 0.07  # of Wu et al., "Unsupervised feature learning" (2018), and DINO
_QUERIES_AT_ONCE: Final = 1024


class Knn(NamedTuple):
    """Classes of the nearest training features by cosine, after the training mean is taken away.

    Each of the k neighbours votes with weight exp(cosine / 0.07).

    Attributes:
        mean: [D], of the training features.
        bank: [n, D], training features less the mean, of length 1.
        targets: float32 [n, classes], 1 where a training item has the class.
        k: Neighbours that vote.
    """

    mean: Tensor
    bank: Tensor
    targets: Tensor
    k: int

    @property
    def chosen(self) -> dict[str, float]:
        """What validation chose."""
        return {"k": self.k}

    def scores(self, features: Tensor) -> Tensor:
        """Returns each class's share of the votes, [n, classes], of features [n, D]."""
        return torch.cat(
            [self.votes(part, (self.k,))[0] for part in features.split(_QUERIES_AT_ONCE)]
        )

    def votes(self, features: Tensor, ks: tuple[int, ...]) -> list[Tensor]:
        """Returns the shares [n, classes] for each number of neighbours."""
        queries = F.normalize(features - self.mean, dim=1)
        most = min(max(ks), len(self.bank))
        cosine, found = (queries @ self.bank.T).topk(most, dim=1)
        weights = ((cosine - 1) / TEMPERATURE).exp()
        targets = self.targets[found] * weights[..., None]  # [n, most, classes]
        sums, totals = targets.cumsum(dim=1), weights.cumsum(dim=1)
        chosen = [min(k, most) - 1 for k in ks]
        return [sums[:, k] / totals[:, k, None].clamp(min=1e-30) for k in chosen]


def fit_knn(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    classes: int,
    score: Callable[[Tensor, Tensor], float],
) -> Knn:
    """Chooses among `NEIGHBOURS` by the score of the validation part; of equals the fewest.

    Args:
        train: Features [n, D] and labels int64 [n], or flags [n, classes].
        val: The same of the validation part.
        classes: Number of classes.
        score: Of scores [n, classes] and labels, the higher the better.
    """
    mean = train[0].mean(dim=0)
    targets = F.one_hot(train[1], classes) if train[1].ndim == 1 else train[1]
    knn = Knn(mean, F.normalize(train[0] - mean, dim=1), targets.float(), 1)
    parts = [knn.votes(part, NEIGHBOURS) for part in val[0].split(_QUERIES_AT_ONCE)]
    found = [score(torch.cat(each), val[1]) for each in zip(*parts, strict=True)]
    return knn._replace(k=NEIGHBOURS[found.index(max(found))])
