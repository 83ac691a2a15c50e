"""A finetuning from the images to the results."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from seamo_fast.files import write_text, writing
from seamo_fast.tasks.features.adapt import band_record
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit.run import Run
from seamo_fast.tasks.finetuning.fit.start import Start, matched_bands, open_start
from seamo_fast.tasks.finetuning.pictures.choice import choose_examples
from seamo_fast.tasks.finetuning.results.draw import draw
from seamo_fast.tasks.finetuning.results.folder import RESULTS, SURVEY, open_folder
from seamo_fast.tasks.finetuning.results.seeds import summarise
from seamo_fast.tasks.finetuning.results.write import (
    describe,
    finite,
    report,
    table,
    versions,
    write_json_results,
    write_results,
)
from seamo_fast.tasks.finetuning.scores import intervals
from seamo_fast.tasks.finetuning.survey import Survey, take_survey
from seamo_fast.training.config import to_dict, to_yaml
from seamo_fast.training.distributed import ranks
from seamo_fast.training.recovery import run_folder

Outcome = dict[str, Any] | signal.Signals
_LOG = logging.getLogger(__name__)


def finetune(config: FinetuneConfig) -> Outcome:
    """Trains a model on a labelled dataset, judges it once on the test part, writes the results.

    A run that was stopped or killed resumes where the same command is given again, and ends with
    the same bits. Started by `torchrun`, all ranks call this.

    Args:
        config: Settings.

    Returns:
        What `results.json` holds, also of a run that is finished already; or the signal that
        stopped the run.

    Raises:
        SeaMoError: Settings, data, weights or the disk prevent the run.
    """
    with ranks.process_group(config.device):
        with ranks.raise_on_all():
            start = open_start(config)
        weights = "random" if start.weights is None else Path(config.checkpoint).stem
        default = Path("runs") / f"{start.opened.name}-{config.method}-{weights}"
        with _folder(config, start, default) as (folder, done):
            if done is not None:
                return done
            stopped = ranks.from_main(run_folder.stopped_by(folder)) if ranks.restarted() else None
            if stopped is not None:
                return stopped
            _note(folder, None)
            survey = _survey(config, start, folder)
            run = _seeds if config.seeds > 1 else fit
            found = run(config, start, survey, folder)
            if isinstance(found, signal.Signals):
                _note(folder, found)
            return found


def _survey(config: FinetuneConfig, start: Start, folder: Path) -> Survey:
    """Returns the survey of the training part, which is kept in the folder."""
    path, found = folder / SURVEY, None
    with ranks.raise_on_all():
        if ranks.is_main():
            if not path.exists():
                take_survey(start.opened, config.on_bad, config.strict).save(path)
            found = Survey.load(path)
    found = ranks.from_main(found)
    assert found is not None
    return found


def _seeds(config: FinetuneConfig, start: Start, survey: Survey, folder: Path) -> Outcome:
    """Runs one seed after the other, each in its own folder, and writes the summary."""
    runs = []
    for number in range(config.seeds):
        own = folder / f"seed_{number}"
        each = replace(config, seed=config.seed + number, seeds=1, output=str(own))
        with _folder(each, start, own) as (path, done):
            found = done if done is not None else fit(each, start, survey, path)
        if isinstance(found, signal.Signals):
            return found
        runs.append(found)
    results = summarise(config, runs)
    with ranks.raise_on_all():
        if ranks.is_main():
            write_json_results(folder, results)
            _LOG.info(f"mean of {config.seeds} seeds\n{table(results['test'])}\nin {folder}")
    return results


def fit(config: FinetuneConfig, start: Start, survey: Survey, folder: Path) -> Outcome:
    """Trains a model, judges it on the test part once all is chosen, and writes the results.

    Args:
        config: Settings of one seed.
        start: The dataset and the weights.
        survey: Of the training part.
        folder: The run's, locked on rank 0.

    Raises:
        SeaMoError: Settings, data, weights or the disk prevent the run.
    """
    began = time.perf_counter()
    run = Run(config, start, survey, folder)
    with ranks.raise_on_all():
        if ranks.is_main():
            with writing(folder / "config.yaml"):
                write_text(folder / "config.yaml", to_yaml(config))
    chosen = run.train()
    if isinstance(chosen, signal.Signals):
        return chosen
    judged = run.judge("test")
    assert judged is not None
    dataset, figures = start.opened.dataset, judged.figures
    whole, by_class = intervals(dataset.task, figures.predictions, config.bootstrap, config.seed)
    results = {
        "dataset": start.opened.name,
        "task": dataset.task,
        "weights": start.weights_name,
        "bands": band_record(
            matched_bands(config, start.weights, survey.modalities), survey.modalities
        ),
        **describe(figures, whole, by_class, dataset.classes),
        "test_loss": finite(judged.loss),
        **chosen,
        "items": {part: len(each) for part, each in start.opened.split._asdict().items()},
        "skipped": sorted(ranks.union({*survey.skipped, *run.items.skipped.values()})),
        "seconds": round(time.perf_counter() - began, 1),
        "config": to_dict(config),
        "versions": versions(),
    }
    with ranks.raise_on_all():
        if ranks.is_main():
            shown = run.examples(choose_examples(dataset.task, figures.predictions))
            draw(folder, figures, by_class, shown, start.opened, survey.modalities)
            write_results(folder, run.model, figures, results)
            for reason in results["skipped"][:5]:
                _LOG.warning(f"skipped: {reason}")
            _LOG.info(report(results, folder))
    return results


@contextmanager
def _folder(
    config: FinetuneConfig, start: Start, default: Path
) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Opens the folder on rank 0, for all ranks; see `open_folder`."""
    with ExitStack() as stack:
        opened = None
        with ranks.raise_on_all():
            if ranks.is_main():
                opened = stack.enter_context(
                    open_folder(config.output, default, start.identity(config))
                )
                if opened[1] is not None:
                    _LOG.info(f"{opened[0]} is finished already; {RESULTS} has its results")
        found = ranks.from_main(opened)
        assert found is not None
        yield found


def _note(folder: Path, stopped: signal.Signals | None) -> None:
    with ranks.raise_on_all():
        if ranks.is_main():
            run_folder.note_stop(folder, stopped)
