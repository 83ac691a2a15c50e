"""The pretraining loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import nn

from seamo_fast.files import write_text
from seamo_fast.tiles import TileBatch
from seamo_fast.training import batches, precision, schedule
from seamo_fast.training.config import PretrainConfig, to_dict, to_yaml
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import run_folder
from seamo_fast.training.recovery.run_state import RunState
from seamo_fast.training.recovery.stop_signals import StopRequest
from seamo_fast.training.recovery.watchdog import Watchdog
from seamo_fast.training.reporting import messages, targets
from seamo_fast.training.reporting.figures import Figures
from seamo_fast.training.reporting.meter import Meter
from seamo_fast.training.reporting.probes import OpenProbe, Probes
from seamo_fast.training.reporting.telemetry import LOG, Telemetry, probed, summary
from seamo_fast.training.schedule import Stage
from seamo_fast.training.step import step_flops
from seamo_fast.views import Views


def pretrain(config: PretrainConfig, open_probe: OpenProbe | None = None) -> signal.Signals | None:
    """Pretrains SeaMo in `config.run.folder`, or resumes the run that is there.

    Started by `torchrun`, all ranks call this, and share the work of one run.

    Args:
        config: All settings.
        open_probe: Opens the dataset `run.probe`; needed where that is set.

    Returns:
        The signal that stopped the run before its last step, None if it is finished.

    Raises:
        SeaMoError: Settings, data, checkpoints or the disk prevent the run; the message says how
            to fix it.
    """
    folder = Path(config.run.folder)
    with ranks.process_group(config.run.device), ExitStack() as stack:
        with ranks.raise_on_all():
            if ranks.is_main():
                stack.enter_context(run_folder.locked(folder))
        # torchrun starts ranks again that end with another status than 0, also at their own wish
        stopped = ranks.from_main(run_folder.stopped_by(folder)) if ranks.restarted() else None
        if stopped is None:
            _note_stop(folder, None)
            stopped = run(RunState(config, folder), open_probe)
            _note_stop(folder, stopped)
        return stopped


def _note_stop(folder: Path, stopped: signal.Signals | None) -> None:
    with ranks.raise_on_all():
        if ranks.is_main():
            run_folder.note_stop(folder, stopped)


def run(state: RunState, open_probe: OpenProbe | None = None) -> signal.Signals | None:
    """Trains the steps that are left, with checkpoints, metrics, figures and probes.

    Args:
        state: The run.
        open_probe: As in `pretrain`.

    Returns:
        The signal that stopped the run before its last step, None if it is finished.

    Raises:
        DataError: No sample has anything to predict.
    """
    figures = Figures(state.config, state.folder, state.shards, state.plan)
    if state.finished:
        figures.draw_missed(state.model, state.step, state.dtype)
        LOG.info(messages.already_finished(state))
        return None
    probes = Probes(state.config, state.folder, state.plan, open_probe)
    remarks: list[str] = []
    with ranks.raise_on_all():
        if ranks.is_main():
            remarks = targets.without_targets(state.config, state.shards, state.plan)
    with _telemetry(state) as telemetry, state.writer:
        return Trainer(state, figures, probes, telemetry).train(remarks)


@contextmanager
def _telemetry(state: RunState) -> Iterator[Telemetry | None]:
    """Opens what reports the run, on rank 0."""
    with ExitStack() as stack:
        telemetry = None
        with ranks.raise_on_all():
            if ranks.is_main():
                write_text(state.folder / "config.yaml", to_yaml(state.config))
                telemetry = Telemetry(
                    state.folder,
                    state.step,
                    state.plan.total,
                    to_dict(state.config),
                    tensorboard=state.config.run.tensorboard,
                    wandb=state.config.run.wandb,
                )
                stack.callback(telemetry.close)
        yield telemetry


class Trainer:
    """The loop over a run's stages and steps; every rank takes the same decisions.

    Args:
        state: The run.
        figures: Draws its figures.
        probes: Measure what its features are worth.
        telemetry: Reports it; None on other ranks than 0.
    """

    def __init__(
        self, state: RunState, figures: Figures, probes: Probes, telemetry: Telemetry | None
    ) -> None:
        self.state = state
        self.config = state.config
        self.figures = figures
        self.probes = probes
        self.telemetry = telemetry
        self.watchdog = Watchdog(state.folder, state.config.run.stall_seconds, state.step)
        self.stop = StopRequest()
        self.signal: signal.Signals | None = None
        rate = precision.matmul_rate(state.device, state.dtype)
        self.rate = ranks.total(torch.tensor(rate)).item()

    def train(self, remarks: Sequence[str]) -> signal.Signals | None:
        """Runs the steps that are left, or up to a signal that asks to stop.

        Args:
            remarks: What to say of the data before the first step.

        Returns:
            The signal that stopped the run before its last step.
        """
        state = self.state
        for line in (*messages.introduction(state, self.rate), *remarks):
            self._say(line)
        self.figures.draw_missed(state.model, state.step, state.dtype)
        self._probe_first()
        with self.watchdog, self.stop:
            while not state.finished and not self.signal:
                self._train_stage()
        with ranks.raise_on_all():
            state.writer.wait()
        stopped = None if state.finished else self.signal
        self._say(messages.conclusion(state, stopped))
        return stopped

    def _probe_first(self) -> None:
        """Probes before the first step: data that cannot be used end the run here."""
        if not self.probes.missing():
            return
        state = self.state
        found = self.probes.measure(state.model)
        if self.telemetry is not None and not state.step:
            stage, _ = state.plan.locate(0)
            line = {"step": 0, "stage": stage.name, **found, "time": time.time()}
            self.telemetry.file(line)
        for text in probed(found):
            self._say(f"step {state.step}: {text}")

    def _train_stage(self) -> None:
        state, config = self.state, self.config
        stage, first = state.plan.locate(state.step)
        steps = state.plan.steps[stage.number]
        loader = batches.make_loader(config, state.shards, stage, start=first)
        module = sharding.replicate(state.model, sharding.leaves_out(state.model, stage))
        flops = step_flops(config, state.shards, stage)
        meter = Meter(stage.modalities, flops, self.rate, state.device)
        source = batches.with_views(config, loader, stage.number)
        for number in range(first, steps):
            lr = schedule.learning_rate(number, steps, config.optim, config.data.batch_size)
            self._train_step(module, source, stage, lr, meter)
            state.bad_records.update(loader.bad_records)
            self._after_step(stage, lr, meter, number + 1 == steps)
            with meter.time("communication"):
                self.signal = self.stop.agree()
            if self.signal:
                # whenever it came: during the step, the log line or the figures
                if state.saved != state.step:
                    self._save(stage)
                return

    def _train_step(
        self,
        module: nn.Module,
        source: Iterator[tuple[TileBatch, Views]],
        stage: Stage,
        lr: float,
        meter: Meter,
    ) -> None:
        state = self.state
        with meter.time("data"), ranks.raise_on_all():
            state.writer.check()
            batch, views = next(source)
        found = state.train(module, batch, views, fusion=stage.fusion, lr=lr, phase=meter.time)
        state.step += 1
        state.guard.add(state.step, found.norm, batch.ids)
        meter.add(found, len(batch.ids) * ranks.world())
        self.watchdog.beat(state.step)
        if self.telemetry is not None:
            self.telemetry.advance()

    def _after_step(self, stage: Stage, lr: float, meter: Meter, last: bool) -> None:
        run, state = self.config.run, self.state
        save = last or state.step % run.checkpoint_every == 0
        draw = self.figures.due(state.step)
        probe = self.probes.due(state.step)
        if not (save or draw or probe or state.step % run.log_every == 0):
            return
        self._log(stage, lr, meter, probe)
        if save:
            with meter.time("checkpoint"):
                self._save(stage)
        if draw:
            self.figures.write(state.model, stage, state.step, state.dtype)
        meter.restart()

    def _log(self, stage: Stage, lr: float, meter: Meter, probe: bool) -> None:
        state = self.state
        state.guard.check()
        measured = meter.flush()
        # each rank knows its own part of the losses
        own = {key: value for key, value in measured.items() if key.startswith("loss")}
        measured.update(ranks.totals(own))
        state.bad_records = ranks.union(state.bad_records)
        # in the line of its step: what was reported is not measured again after a kill
        found = self.probes.measure(state.model) if probe else {}
        if self.telemetry is None:
            return
        metrics = {
            "step": state.step,
            "stage": stage.name,
            **measured,
            **found,
            "lr": lr,
            "seconds_left": self._flops_left() / (measured["mfu"] * self.rate),
            "skipped": state.guard.skipped,
            "bad_records": len(state.bad_records),
            "time": time.time(),
        }
        self.telemetry.report(metrics, stage.name, summary(metrics))

    def _flops_left(self) -> int:
        plan = self.state.plan
        per_sample = [step_flops(self.config, self.state.shards, s) for s in plan.stages]
        steps = plan.left(self.state.step)
        batch = self.config.data.batch_size
        return sum(batch * n * flops for n, flops in zip(steps, per_sample, strict=True))

    def _save(self, stage: Stage) -> None:
        with ranks.raise_on_all():
            if self.telemetry is not None:
                # after a power failure no metrics before the checkpoint are missing
                self.telemetry.sync()
        self.state.save(stage)

    def _say(self, message: str) -> None:
        if self.telemetry is not None:
            self.telemetry.say(message)
