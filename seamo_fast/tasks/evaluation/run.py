"""An evaluation from the images to the table."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from seamo_fast._version import __version__
from seamo_fast.files import cache_folder, locked
from seamo_fast.model.weights import read_weights
from seamo_fast.tasks.datasets.open import Opened, check_labels, open_dataset
from seamo_fast.tasks.evaluation.config import EvaluateConfig, ProbeConfig
from seamo_fast.tasks.evaluation.examples import ExampleLoader
from seamo_fast.tasks.evaluation.fit import fit_probes
from seamo_fast.tasks.evaluation.intervals import resample
from seamo_fast.tasks.evaluation.judge import Judged, Row, judge
from seamo_fast.tasks.evaluation.output import open_folder, write_results
from seamo_fast.tasks.evaluation.rows import Target, make_rows
from seamo_fast.tasks.evaluation.scores import METRICS
from seamo_fast.tasks.evaluation.table import as_text
from seamo_fast.tasks.features.adapt import band_record
from seamo_fast.tasks.features.extract import Source, extract, measured_modalities
from seamo_fast.tasks.features.extractors import Extractor
from seamo_fast.tasks.features.store import Store, dataset_key
from seamo_fast.training.precision import choose_device, choose_dtype

_LOG = logging.getLogger(__name__)


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluates checkpoints and baselines, writes the results and logs the table.

    Args:
        config: Settings.

    Returns:
        What `results.json` holds.

    Raises:
        ConfigError: Settings that contradict the data or a checkpoint.
        DataError: The images or labels cannot be used.
        CheckpointError: A checkpoint cannot be used.
    """
    start = time.perf_counter()
    device = choose_device(config.device)
    weights = [read_weights(path) for path in config.checkpoints]
    opened = open_dataset(config.data, config.dataset, config)
    check_labels(opened)
    name = f"evaluate-{opened.name}"
    with open_folder(config.output, name) as output, _open_store(config, opened) as store:
        source = Source(opened, store, config.on_bad, config.strict)
        target = Target(
            measured_modalities(source),
            opened.dataset.task,
            device,
            choose_dtype(config.precision, device),
            config.strict,
            config.unknown_bands,
            config.pooling,
        )
        rows = make_rows(config, weights, target)
        found, judged = evaluate_rows(source, rows, config, config.reference)
        results = {
            "dataset": opened.name,
            **found,
            "weights": {
                name: str(each.path) for name, each in zip(config.checkpoints, weights, strict=True)
            },
            "bands": {
                name: band_record(target.matches(each), target.modalities)
                for name, each in zip(config.checkpoints, weights, strict=True)
            },
            "config": asdict(config),
            "versions": {"seamo_fast": __version__, "torch": torch.__version__},
        }
        facts = {
            "seconds": round(time.perf_counter() - start, 1),
            "machine": platform.machine(),
            "device": str(device),
            "threads": torch.get_num_threads(),
        }
        write_results(output, results, judged, facts)
        _LOG.info(f"{as_text(results)}\n{facts['seconds']:.0f} s; written to {output}")
    return results


def evaluate_rows(
    source: Source,
    rows: Mapping[str, Extractor],
    config: ProbeConfig,
    reference: str | None = None,
) -> tuple[dict[str, Any], Judged]:
    """Extracts features, fits all probes, then judges them on the test part once.

    Args:
        source: The dataset.
        rows: What makes the features of each row.
        config: What to fit.
        reference: Row that the others are compared with; None for "random", or the first.

    Returns:
        Figures, JSON-able, and what became of each test item.

    Raises:
        DataError: The images or labels cannot be used.
    """
    skipped = extract(source, list(rows.values()))
    for reason in skipped[:5]:
        _LOG.warning(f"skipped: {reason}")
    examples = ExampleLoader(source, config)
    fitted = {
        name: Row(extractor, fit_probes(examples, extractor)) for name, extractor in rows.items()
    }
    judged = judge(source, fitted)
    reference = reference or ("random" if "random" in rows else next(iter(rows)))
    chosen = {
        name: {column: [each.chosen for each in draws] for column, draws in row.columns.items()}
        for name, row in fitted.items()
    }
    dataset = source.opened.dataset
    return {
        "task": dataset.task,
        "classes": list(dataset.classes),
        "items": {part: len(each) for part, each in source.opened.split._asdict().items()},
        "skipped": skipped,
        "reference": reference,
        "chosen_by_validation": chosen,
        "figures": _figures(judged, source, config, reference),
    }, judged


def _figures(
    judged: Judged, source: Source, config: ProbeConfig, reference: str
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns metric -> column -> row -> value, interval, and difference to the reference."""
    return {
        metric: {
            column: _compared(outcomes, function, config, reference)
            for column, outcomes in judged.outcomes.items()
        }
        for metric, function in METRICS[source.opened.dataset.task].items()
    }


def _compared(
    outcomes: Any, metric: Any, config: ProbeConfig, reference: str
) -> dict[str, dict[str, float]]:
    found = resample(outcomes, metric, config.bootstrap, config.seed)
    figures = {}
    for name, each in found.items():
        own, less = each.estimate(), each.less(found[reference])
        figures[name] = {"value": own.value, "low": own.low, "high": own.high}
        if name != reference:
            figures[name] |= {
                "difference": less.value,
                "difference_low": less.low,
                "difference_high": less.high,
            }
    return figures


@contextmanager
def _open_store(config: EvaluateConfig, opened: Opened) -> Iterator[Store]:
    """Opens the features of a dataset, for one process: in the cache, or gone afterwards."""
    with ExitStack() as stack:
        if config.cache:
            root = cache_folder() / "features"
        else:
            root = Path(stack.enter_context(TemporaryDirectory(prefix="seamo_fast-features-")))
        store = Store(root, {**dataset_key(opened), "on_bad": config.on_bad})
        stack.enter_context(locked(store.folder, "the cache of features", "(--cache false)"))
        yield store
