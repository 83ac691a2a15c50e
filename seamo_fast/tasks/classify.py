"""Classification of EuroSAT images, from the files to the results."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seamo_fast._version import __version__
from seamo_fast.errors import DataError
from seamo_fast.files import move_aside, results_folder, write_text
from seamo_fast.modalities import Modality
from seamo_fast.model.backbone import SeaMoBackbone
from seamo_fast.model.config import PRESETS
from seamo_fast.model.unit_check import UnitCheck
from seamo_fast.model.weights import Weights, read_weights
from seamo_fast.tasks.classifier import Classifier, predict
from seamo_fast.tasks.config import FinetuneConfig
from seamo_fast.tasks.datasets.eurosat import EuroSAT
from seamo_fast.tasks.features.adapt import Match, match_modalities, pretrained_backbone
from seamo_fast.tasks.full import finetune
from seamo_fast.tasks.metrics import Evaluation, evaluate, plot_confusion
from seamo_fast.tasks.probes.linear import fit_probe
from seamo_fast.tasks.samples import Samples, load_samples, measure
from seamo_fast.training.precision import choose_device, choose_dtype

RESULTS = "results.json"
_CONFUSION = "confusion.png"
_MODEL = "model.safetensors"
_LOG = logging.getLogger(__name__)


class _Parts(NamedTuple):
    train: Samples
    val: Samples
    test: Samples

    @property
    def skipped(self) -> list[str]:
        return [reason for part in self for reason in part.skipped]


def classify(config: FinetuneConfig) -> dict[str, Any]:
    """Trains a classifier, evaluates it once on the test part, and writes the results.

    The output folder gets `results.json`, `confusion.png` and `model.safetensors`. What it has of
    an earlier run is moved into a subfolder.

    Args:
        config: Settings.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: Settings that contradict the data or the checkpoint, or an output folder that
            is in use.
        DataError: The images cannot be used.
        CheckpointError: The checkpoint cannot be used.
    """
    start = time.perf_counter()
    device = choose_device(config.device)
    dtype = choose_dtype(config.precision, device)
    torch.manual_seed(config.seed)
    weights = None if config.checkpoint == "none" else read_weights(config.checkpoint)
    dataset, match = _open(config, weights)
    start_name = "random" if weights is None else Path(config.checkpoint).stem
    default = Path("runs") / f"{dataset.kind}-{config.method}-{start_name}"
    with results_folder(config.output, default, "output") as output:
        parts = _load(dataset, config)
        release = f"{dataset.kind} training split"
        modality = measure(dataset.modality, parts.train.images, release, config.strict)
        for part in parts[1:]:
            UnitCheck(config.strict)(modality, part.images[:, None])
        model = Classifier(_backbone(config, weights, match, modality), dataset.classes).to(device)
        chosen = _train(model, parts, config, dtype)
        predicted = predict(model, parts.test.images, dtype).argmax(dim=1)
        found = evaluate(predicted, parts.test.labels, len(dataset.classes))
        results = {
            "dataset": dataset.kind,
            "bands": dataset.modality.band_names,
            "images": {name: len(part) for name, part in parts._asdict().items()},
            "skipped": parts.skipped,
            "weights": str(weights.path) if weights else "random",
            **chosen,
            **_summary(found, dataset.classes),
            "seconds": round(time.perf_counter() - start, 1),
            "config": asdict(config),
            "versions": {"seamo_fast": __version__, "torch": torch.__version__},
        }
        earlier = move_aside(output, (RESULTS, _CONFUSION, _MODEL))
        if earlier:
            _LOG.warning(f"the earlier results were moved to {earlier}")
        model.save(output / _MODEL)
        title = f"{dataset.kind}, {config.method}, test accuracy {found.accuracy:.1%}"
        plot_confusion(found.confusion, dataset.classes, title, output / _CONFUSION)
        write_text(output / RESULTS, json.dumps(results, indent=1) + "\n")
        _LOG.info(_report(results, output))
    return results


def _open(config: FinetuneConfig, weights: Weights | None) -> tuple[EuroSAT, Match | None]:
    """Returns the dataset with the bands that pretrained weights know, and what takes them."""
    dataset = EuroSAT(config.data, None if config.dataset == "auto" else config.dataset)
    if weights is None:
        return dataset, None
    if config.model is not None:
        weights.check_size(config.model)
    (match,) = match_modalities(weights, dataset.modalities)
    return EuroSAT(config.data, dataset.kind, match.bands), match


def _load(dataset: EuroSAT, config: FinetuneConfig) -> _Parts:
    split = dataset.split()
    parts = _Parts(*(load_samples(dataset, part, config.on_bad) for part in split))
    train, val, test = (len(part) for part in parts)
    _LOG.info(
        f"{dataset.kind}: {len(dataset.classes)} classes; images: {train} training, {val} "
        f"validation, {test} test; bands: {', '.join(dataset.modality.band_names)}"
    )
    for reason in parts.skipped[:5]:
        _LOG.warning(f"skipped: {reason}")
    if parts.skipped:
        _LOG.warning(f"skipped {len(parts.skipped)} images; {RESULTS} names each")
    lost = sorted({dataset.labels[n] for n in split.train} - set(parts.train.labels.tolist()))
    if lost:
        names = ", ".join(dataset.classes[n] for n in lost)
        raise DataError(
            f"{config.data}: no training image of {names} can be read "
            f"({parts.train.skipped[0]}); restore the images, or remove the class"
        )
    if len(parts.train.labels.unique()) < 2:
        raise DataError(f"{config.data} must hold at least two classes")
    return parts


def _backbone(
    config: FinetuneConfig, weights: Weights | None, match: Match | None, modality: Modality
) -> SeaMoBackbone:
    """Returns a backbone without fusion that takes the dataset's bands alone."""
    if weights is None or match is None:
        preset = replace(PRESETS[config.model or "tiny"], fusion="none")
        return SeaMoBackbone(preset, [modality], "pooled", config.strict)
    weights = replace(weights, config=replace(weights.config, fusion="none"))
    return pretrained_backbone(weights, [match], [modality], "pooled", config.strict)


def _train(
    model: Classifier, parts: _Parts, config: FinetuneConfig, dtype: torch.dtype
) -> dict[str, Any]:
    """Trains as the method says; returns what validation chose."""
    if config.method == "full":
        best, epochs = finetune(model, parts.train, parts.val, config, dtype)
        return {
            "validation_accuracy": best.val_accuracy,
            "epoch": best.number,
            "epochs": [epoch._asdict() for epoch in epochs],
        }
    train, val = (
        (predict(model, part.images, dtype, head=False), part.labels) for part in parts[:2]
    )
    probe = fit_probe(train, val, len(model.classes))
    with torch.no_grad():
        model.head.weight.copy_(probe.weight)
        model.head.bias.copy_(probe.bias)
    return {"validation_accuracy": probe.accuracy, "penalty": probe.penalty}


def _summary(found: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "test_accuracy": found.accuracy,
        "test_interval_95": found.interval,
        "test_accuracy_by_class": dict(zip(classes, found.by_class, strict=True)),
        "confusion": found.confusion.tolist(),
    }


def _report(results: dict[str, Any], output: Path) -> str:
    low, high = results["test_interval_95"]
    width = max(map(len, results["test_accuracy_by_class"]))
    lines = [
        f"  {name:<{width}}  " + ("no test image" if value is None else f"{value:.3f}")
        for name, value in results["test_accuracy_by_class"].items()
    ]
    lines += [
        f"validation accuracy {results['validation_accuracy']:.4f}",
        f"test accuracy {results['test_accuracy']:.4f} (95 % confidence {low:.4f} to {high:.4f}, "
        f"{results['images']['test']} images), weights: {results['weights']}, "
        f"{results['seconds']:.0f} s",
        f"written to {output}: {RESULTS}, {_CONFUSION}, {_MODEL}",
    ]
    return "\n".join(lines)
