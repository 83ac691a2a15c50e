"""The probes of one row, fitted on training and chosen by validation labels alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from seamo_fast.tasks.evaluation.config import ProbeConfig
from seamo_fast.tasks.evaluation.examples import load_examples
from seamo_fast.tasks.evaluation.scores import score_of
from seamo_fast.tasks.features.extract import Source
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.tasks.probes.knn import fit_knn
from seamo_fast.tasks.probes.linear import fit_probe
from seamo_fast.tasks.probes.subsets import few_of_each


class Predictor(Protocol):
    """A fitted probe."""

    @property
    def chosen(self) -> dict[str, float]:
        """What validation chose."""
        ...

    def scores(self, features: Tensor) -> Tensor:
        """Returns [n, classes] of features [n, D]; the highest is the prediction."""
        ...


def fit_probes(
    source: Source, extractor: Extractor, config: ProbeConfig
) -> dict[str, list[Predictor]]:
    """Fits every probe of a row.

    Args:
        source: The dataset, whose features have been extracted.
        extractor: Whose features.
        config: What to fit.

    Returns:
        For each column ("kNN", "linear", "5-shot") the probes, one for each draw.

    Raises:
        DataError: Labels are outside of the classes, or less than two classes occur.
    """
    return {name: list(each) for name, each in _columns(source, extractor, config)}


def _columns(
    source: Source, extractor: Extractor, config: ProbeConfig
) -> Iterator[tuple[str, Iterator[Predictor]]]:
    classes = len(source.opened.dataset.classes)
    train, val = (load_examples(source, extractor, part, config) for part in ("train", "val"))
    yield "kNN", iter([fit_knn(train, val, classes, score_of)])
    yield "linear", iter([fit_probe(train, val, classes, config.method)])
    for k in config.shots:

        def draws(k: int = k) -> Iterator[Predictor]:
            for draw in range(config.draws):
                few_train, few_val = (
                    part.take(few_of_each(part.labels, classes, k, config.seed, name, draw))
                    for name, part in (("train", train), ("val", val))
                )
                yield fit_probe(few_train, few_val, classes, config.method)

        yield f"{k}-shot", draws()
