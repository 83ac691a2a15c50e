"""The probes of one row, fitted on training and chosen by validation labels alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from seamo_fast.tasks.evaluation.examples import ExampleLoader
from seamo_fast.tasks.evaluation.scores import score_of
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


def fit_probes(examples: ExampleLoader, extractor: Extractor) -> dict[str, list[Predictor]]:
    """Fits every probe of a row.

    Args:
        examples: The dataset, and what to fit.
        extractor: Whose features.

    Returns:
        For each column ("kNN", "linear", "5-shot") the probes, one for each draw.

    Raises:
        DataError: Labels are outside of the classes, or less than two classes occur.
    """
    return {name: list(each) for name, each in _columns(examples, extractor)}


def _columns(
    examples: ExampleLoader, extractor: Extractor
) -> Iterator[tuple[str, Iterator[Predictor]]]:
    config, classes = examples.config, len(examples.source.opened.dataset.classes)
    train, val = (examples.load(extractor, part) for part in ("train", "val"))
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
