"""The probe of a pretraining run: kNN and a linear probe of its weights, in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch

from seamo_fast.model.weights import Weights
from seamo_fast.tasks.datasets.open import Opened, open_dataset, within_training
from seamo_fast.tasks.evaluation.config import ProbeConfig
from seamo_fast.tasks.evaluation.rows import Target, pretrained_row
from seamo_fast.tasks.evaluation.run import evaluate_rows
from seamo_fast.tasks.evaluation.table import main_metric
from seamo_fast.tasks.features.extract import Source, measured_modalities
from seamo_fast.tasks.features.store import Store, dataset_key, named
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.precision import choose_device, choose_dtype
from seamo_fast.training.recovery import run_folder

_CHEAP: Final = ProbeConfig(shots=(), bootstrap=100)
_NAMES: Final = {"kNN": "knn", "linear": "linear"}


class RunProbe:
    """Judges weights on the validation part of a dataset; its test part is never read.

    What probes choose by validation elsewhere they choose by a fifth of the training part here, see
    `within_training`. Features are kept until they are judged, so that a probe that was killed
    resumes.

    Args:
        opened: The dataset with its own split.
        folder: Where labels and features are kept, for this process alone.
        device: Where the backbone runs.
        dtype: Of its matrix products.
    """

    def __init__(
        self, opened: Opened, folder: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        judged = within_training(opened)
        self._source = Source(judged, Store(folder, dataset_key(judged)))
        self._device, self._dtype = device, dtype

    def __call__(self, weights: Weights) -> dict[str, float]:
        """Returns the main metric of the task as "knn" and "linear".

        Raises:
            ConfigError: The weights know no band of the dataset.
            DataError: The images or labels cannot be used.
        """
        source = self._source
        modalities, task = measured_modalities(source), source.opened.dataset.task
        row = pretrained_row(weights, Target(modalities, task, self._device, self._dtype))
        found, _ = evaluate_rows(source, {"model": row}, _CHEAP)
        shutil.rmtree(source.store.folder / named(row.key))
        figures = found["figures"][main_metric(found)]
        return {name: figures[column]["model"]["value"] for column, name in _NAMES.items()}


def open_probe(config: PretrainConfig) -> RunProbe:
    """Opens the dataset `run.probe` of a pretraining run.

    Raises:
        SeaMoError: It cannot be used.
    """
    assert config.run.probe is not None
    device = choose_device(config.run.device)
    return RunProbe(
        open_dataset(config.run.probe),
        Path(config.run.folder) / run_folder.PROBE,
        device,
        choose_dtype(config.run.precision, device),
    )
