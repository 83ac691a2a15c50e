"""A finetuning from the images to the results."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from seamo_fast.files import read_json, write_json
from seamo_fast.tasks.finetuning.config import FinetuneConfig
from seamo_fast.tasks.finetuning.fit.run import fit
from seamo_fast.tasks.finetuning.fit.start import Start, open_start
from seamo_fast.tasks.finetuning.results.folder import RESULTS, SURVEY, open_folder
from seamo_fast.tasks.finetuning.results.seeds import summarise
from seamo_fast.tasks.finetuning.results.write import write_json_results
from seamo_fast.tasks.finetuning.survey import Survey, take_survey
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
                taken = take_survey(start.opened, config.on_bad, config.strict)
                write_json(path, taken.to_dict())
            found = read_json(path)
    return Survey.from_dict(ranks.from_main(found))


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
