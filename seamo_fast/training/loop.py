"""The pretraining loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from seamo_fast.model.weights import model_metadata
from seamo_fast.tiles import TileBatch
from seamo_fast.training import build, checkpoint, optimizer, precision, runfolder, schedule
from seamo_fast.training.config import PretrainConfig, to_yaml
from seamo_fast.training.guard import NonFiniteGuard
from seamo_fast.training.report import Report
from seamo_fast.training.schedule import Stage
from seamo_fast.training.signals import StopRequest
from seamo_fast.training.telemetry import LOG, Meter, Telemetry
from seamo_fast.views import Views


def pretrain(config: PretrainConfig) -> None:
    """Pretrains SeaMo in `config.run.folder`, or goes on where that run stopped.

    Raises:
        SeaMoError: Settings, data, checkpoints or the disk stand in the way; the message says how
            to mend it.
    """
    folder = Path(config.run.folder)
    with runfolder.locked(folder):
        Trainer(config, folder).train()


class Trainer:
    """One run from its first or next step to its end.

    Nothing random is kept between steps: batches, views and weights follow from the seed.

    Args:
        config: All settings.
        folder: The run folder, locked by the caller.
    """

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.step = 0
        self.shards = build.open_shards(config.data.path)
        self.plan = build.make_plan(config, self.shards)
        self.device = precision.choose_device(config.run.device)
        self.model = build.make_model(config, self.shards, self.plan).to(self.device)
        self.optimizer = optimizer.build(self.model, config.optim)
        self.guard = NonFiniteGuard(config.run.max_nonfinite)
        self.bad_records: set[str] = set()
        self.saved = -1
        self.dtype = self._resume()

    def train(self) -> None:
        """Runs the steps that are left, with checkpoints, metrics and figures."""
        self.report = Report(self.config, self.folder, self.shards, self.plan)
        if self.step >= self.plan.total:
            self._draw_missed()
            LOG.info(
                f"{self.folder} is finished already, at step {self.step}; choose another "
                "--run.folder, or start over with --run.resume none"
            )
            return
        run = self.config.run
        runfolder.write_atomically(self.folder / "config.yaml", to_yaml(self.config))
        build.compile_model(self.model, run.compile)
        self.rate = precision.matmul_rate(self.device, self.dtype)
        self.telemetry = Telemetry(self.folder, self.step, self.plan.total, run.tensorboard)
        try:
            self._introduce()
            self._draw_missed()
            with StopRequest() as stop:
                while self.step < self.plan.total and not stop.signal:
                    self._train_stage(stop)
            self._conclude(stop)
        finally:
            self.telemetry.close()

    def _resume(self) -> torch.dtype:
        """Restores the checkpoint to go on from, if any; returns the dtype of matrix products."""
        run = self.config.run
        start = runfolder.find_start(self.folder, run.resume, LOG.warning)
        if start is None:
            return precision.choose_dtype(run.precision, self.device)
        found = checkpoint.load(start)
        runfolder.check_same(
            start, found.record["identity"], build.identity(self.config, self.shards)
        )
        runfolder.make_room(self.folder, start, LOG.warning)
        self.model.load_state_dict(found.model)
        optimizer.set_state(self.model, self.optimizer, found.optimizer)
        checkpoint.set_aside_after(self.folder / runfolder.CHECKPOINTS, found.step)
        self.step = found.step
        self.guard.skipped = found.record["skipped_steps"]
        self.bad_records.update(found.record.get("bad_records", ()))  # older ones do not have it
        LOG.info(f"going on at step {self.step}, from {start}")
        return precision.choose_dtype(found.record["precision"], self.device)

    def _train_stage(self, stop: StopRequest) -> None:
        stage, first = self.plan.locate(self.step)
        steps = self.plan.steps[stage.number]
        loader = build.make_loader(self.config, self.shards, stage, start=first)
        meter = Meter(build.step_flops(self.config, self.shards, stage), self.rate, self.device)
        batches = build.with_views(self.config, loader, stage.number)
        for number in range(first, steps):
            lr = schedule.learning_rate(
                number, steps, self.config.optim, self.config.data.batch_size
            )
            self._train_step(batches, stage, lr, meter)
            self.bad_records.update(loader.bad_records)
            self._after_step(stage, lr, meter, number + 1 == steps)
            if stop.signal:
                # whenever it came: during the step, the log line or the figures
                if self.saved != self.step:
                    self._save(stage)
                return

    def _train_step(
        self, batches: Iterator[tuple[TileBatch, Views]], stage: Stage, lr: float, meter: Meter
    ) -> None:
        start = time.perf_counter()
        batch, views = next(batches)
        ids = batch.ids
        waited = time.perf_counter() - start
        batch = batch.to(self.device, non_blocking=True)
        views = views.to(self.device, non_blocking=True)
        with precision.autocast(self.device, self.dtype):
            losses = self.model(batch, views, fusion=stage.fusion)
        losses.total.backward()
        norm = optimizer.apply(self.optimizer, self.model, lr, self.config.optim.clip)
        self.step += 1
        self.guard.add(self.step, norm, ids)
        meter.add(_named(losses.total, losses.by_modality), norm, len(ids), waited)
        self.telemetry.advance()

    def _after_step(self, stage: Stage, lr: float, meter: Meter, last: bool) -> None:
        run = self.config.run
        save = last or self.step % run.checkpoint_every == 0
        draw = self._figures_due()
        if not (save or draw or self.step % run.log_every == 0):
            return
        self._log(stage, lr, meter)
        if save:
            self._save(stage)
        if draw:
            self.report.write(self.model, stage, self.step, self.dtype)
        meter.restart()

    def _figures_due(self) -> bool:
        every = self.config.run.figures_every
        return self.step in self.plan.ends() or (every is not None and self.step % every == 0)

    def _draw_missed(self) -> None:
        """Draws the figures of the checkpoint gone on from, if the run was killed before them."""
        if self.step and self._figures_due() and not self.report.drawn(self.step):
            stage, _ = self.plan.locate(self.step - 1)
            self.report.write(self.model, stage, self.step, self.dtype)

    def _log(self, stage: Stage, lr: float, meter: Meter) -> None:
        self.guard.check()
        measured = meter.flush()
        self.telemetry.report(
            {
                "step": self.step,
                "stage": stage.name,
                **measured,
                "lr": lr,
                "seconds_left": self._flops_left() / (measured["mfu"] * self.rate),
                "skipped": self.guard.skipped,
                "bad_records": len(self.bad_records),
                "time": time.time(),
            }
        )

    def _flops_left(self) -> int:
        per_sample = [build.step_flops(self.config, self.shards, s) for s in self.plan.stages]
        steps = [
            max(0, min(end - self.step, steps))
            for end, steps in zip(self.plan.ends(), self.plan.steps, strict=True)
        ]
        batch = self.config.data.batch_size
        return sum(batch * n * flops for n, flops in zip(steps, per_sample, strict=True))

    def _save(self, stage: Stage) -> None:
        self.telemetry.sync()  # after a power failure no metrics before the checkpoint are missing
        checkpoint.save(
            self.folder / runfolder.CHECKPOINTS,
            self.step,
            self.model.state_dict(),
            optimizer.get_state(self.model, self.optimizer),
            {
                "stage": stage.name,
                "precision": "bf16" if self.dtype == torch.bfloat16 else "fp32",
                "skipped_steps": self.guard.skipped,
                "bad_records": sorted(self.bad_records),
                "identity": build.identity(self.config, self.shards),
            },
            model_metadata(self.config.model, self.model.modalities),
            self.config.run.keep,
        )
        self.saved = self.step

    def _introduce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self.telemetry.say(
            f"{self.folder}: {parameters / 1e6:.1f} M parameters, {len(self.shards)} samples, "
            f"{self.device.type} in {str(self.dtype).removeprefix('torch.')}, matrix products "
            f"{self.rate / 1e9:.0f} GFLOP/s, {self.plan.total} steps"
        )
        for stage, steps in zip(self.plan.stages, self.plan.steps, strict=True):
            self.telemetry.say(
                f"stage {stage.name}: {steps} steps, {stage.seasons} seasons of "
                f"{', '.join(stage.modalities)}, {'with' if stage.fusion else 'without'} fusion"
            )

    def _conclude(self, stop: StopRequest) -> None:
        if self.step < self.plan.total:
            self.telemetry.say(
                f"stopped by {stop.signal} after step {self.step} of {self.plan.total}, "
                "which is saved; the same command goes on from there"
            )
        else:
            self.telemetry.say(
                f"finished; look at {self.folder / 'loss.png'} and "
                f"{self.folder / 'reconstructions'}"
            )


def _named(total: Tensor, by_modality: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"loss": total, **{f"loss/{name}": loss for name, loss in by_modality.items()}}
