"""The pretraining loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from seamo_fast.model.weights import model_metadata
from seamo_fast.tiles import TileBatch
from seamo_fast.training import build, gradients, optimizer, precision, schedule
from seamo_fast.training.config import PretrainConfig, to_yaml
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import checkpoint, resume, run_folder
from seamo_fast.training.recovery.nonfinite import NonFiniteGuard
from seamo_fast.training.recovery.stop_signals import StopRequest
from seamo_fast.training.recovery.watchdog import Watchdog
from seamo_fast.training.reporting.figures import Report
from seamo_fast.training.reporting.meter import Meter
from seamo_fast.training.reporting.telemetry import LOG, Telemetry
from seamo_fast.training.schedule import Stage
from seamo_fast.views import Views


def pretrain(config: PretrainConfig) -> None:
    """Pretrains SeaMo in `config.run.folder`, or goes on where that run stopped.

    Started by `torchrun`, all ranks call this, and share the work of one run.

    Raises:
        SeaMoError: Settings, data, checkpoints or the disk stand in the way; the message says how
            to mend it.
    """
    folder = Path(config.run.folder)
    with ranks.process_group(config.run.device), ExitStack() as stack:
        with ranks.raise_on_all():
            if ranks.is_main():
                stack.enter_context(run_folder.locked(folder))
        Trainer(config, folder).train()


class Trainer:
    """One run from its first or next step to its end.

    Nothing random is kept between steps: batches, views and weights follow from the seed. Rank 0
    alone writes to the run folder; every rank has a trainer and takes the same decisions.

    Args:
        config: All settings.
        folder: The run folder, locked by the caller on rank 0.
    """

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.step = 0
        self.signal: str | None = None
        with ranks.raise_on_all():
            ranks.check_batch(config.data.batch_size, config.optim.accumulate)
            self.shards = build.open_shards(config.data.path)
            self.plan = build.make_plan(config, self.shards)
            self.device = precision.choose_device(config.run.device)
            self.model = build.make_model(config, self.shards, self.plan).to(self.device)
            self.identity = build.identity(config, self.shards)
        self.guard = NonFiniteGuard(config.run.max_nonfinite)
        self.writer = checkpoint.Writer()
        self.bad_records: set[str] = set()
        self.saved = -1
        self.dtype = self._begin()

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
        rate = precision.matmul_rate(self.device, self.dtype)
        self.rate = ranks.total(torch.tensor(rate)).item()
        self.telemetry: Telemetry | None = None
        with ranks.raise_on_all():
            if ranks.is_main():
                run_folder.write_atomically(self.folder / "config.yaml", to_yaml(self.config))
                self.telemetry = Telemetry(self.folder, self.step, self.plan.total, self.config)
        try:
            self._introduce()
            self._draw_missed()
            self.watchdog = Watchdog(self.folder, run.stall_seconds, self.step)
            with self.watchdog, StopRequest() as stop:
                while self.step < self.plan.total and not self.signal:
                    self._train_stage(stop)
            with ranks.raise_on_all():
                self.writer.wait()
            self._conclude()
        except OSError:
            # of a full disk a failed checkpoint says more
            self.writer.wait()
            raise
        finally:
            self.writer.close()
            if self.telemetry is not None:
                self.telemetry.close()

    def _begin(self) -> torch.dtype:
        """Makes the model ready to train, from a checkpoint if there is one.

        Returns:
            The dtype of matrix products.
        """
        run = self.config.run
        found = resume.find(self.folder, run.resume, self.identity)
        dtype = precision.choose_dtype(
            run.precision if found is None else found.record["precision"], self.device
        )
        build.recompute_blocks(self.model, run.recompute)
        build.compile_model(self.model, run.compile, self.device)
        sharding.shard(self.model, self.config.distributed, self.device, dtype)
        self.optimizer = optimizer.build(self.model, self.config.optim)
        if found is not None:
            resume.restore(found, self.folder, self.model, self.optimizer)
            self.step = found.step
            self.guard.skipped = found.record["skipped_steps"]
            # older ones do not have it
            self.bad_records.update(found.record.get("bad_records", ()))
        return dtype

    def _train_stage(self, stop: StopRequest) -> None:
        stage, first = self.plan.locate(self.step)
        steps = self.plan.steps[stage.number]
        loader = build.make_loader(self.config, self.shards, stage, start=first)
        module = sharding.replicate(self.model, stage)
        meter = Meter(build.step_flops(self.config, self.shards, stage), self.rate, self.device)
        batches = build.with_views(self.config, loader, stage.number)
        for number in range(first, steps):
            lr = schedule.learning_rate(
                number, steps, self.config.optim, self.config.data.batch_size
            )
            self._train_step(module, batches, stage, lr, meter)
            self.bad_records.update(loader.bad_records)
            self._after_step(stage, lr, meter, number + 1 == steps)
            with meter.time("communication"):
                self.signal = stop.agree()
            if self.signal:
                # whenever it came: during the step, the log line or the figures
                if self.saved != self.step:
                    self._save(stage)
                return

    def _train_step(
        self,
        module: nn.Module,
        batches: Iterator[tuple[TileBatch, Views]],
        stage: Stage,
        lr: float,
        meter: Meter,
    ) -> None:
        with meter.time("data"), ranks.raise_on_all():
            self.writer.check()
            batch, views = next(batches)
        ids = batch.ids
        batch = batch.to(self.device, non_blocking=True)
        views = views.to(self.device, non_blocking=True)
        with meter.time("forward_backward"):
            losses = gradients.backward(
                self.model,
                module,
                batch,
                views,
                fusion=stage.fusion,
                accumulate=self.config.optim.accumulate,
                autocast=precision.autocast(self.device, self.dtype),
            )
        with meter.time("optimizer"):
            norm = optimizer.apply(self.optimizer, self.model, lr, self.config.optim.clip)
        self.step += 1
        self.guard.add(self.step, norm, ids)
        meter.add(_named(stage, losses), norm, len(ids) * ranks.world())
        self.watchdog.beat(self.step)
        if self.telemetry is not None:
            self.telemetry.advance()

    def _after_step(self, stage: Stage, lr: float, meter: Meter, last: bool) -> None:
        run = self.config.run
        save = last or self.step % run.checkpoint_every == 0
        draw = self._figures_due()
        if not (save or draw or self.step % run.log_every == 0):
            return
        self._log(stage, lr, meter)
        if save:
            with meter.time("checkpoint"):
                self._save(stage)
        if draw:
            self.report.write(self.model, stage, self.step, self.dtype)
        meter.restart()

    def _figures_due(self) -> bool:
        every = self.config.run.figures_every
        return self.step in self.plan.ends() or (every is not None and self.step % every == 0)

    def _draw_missed(self) -> None:
        """Draws the figures of the checkpoint gone on from, if the run was killed before them."""
        drawn = ranks.from_main(self.report.drawn(self.step))
        if self.step and self._figures_due() and not drawn:
            stage, _ = self.plan.locate(self.step - 1)
            self.report.write(self.model, stage, self.step, self.dtype)

    def _log(self, stage: Stage, lr: float, meter: Meter) -> None:
        self.guard.check()
        measured = meter.flush()
        # each rank knows its own part of the losses
        own = {key: value for key, value in measured.items() if key.startswith("loss")}
        measured.update(ranks.totals(own))
        self.bad_records = ranks.union(self.bad_records)
        if self.telemetry is None:
            return
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
        # copies: the next steps change the originals while these are written
        model = sharding.gather(self.model.state_dict())
        state = sharding.gather(optimizer.get_state(self.model, self.optimizer))
        record = {
            "stage": stage.name,
            "precision": "bf16" if self.dtype == torch.bfloat16 else "fp32",
            "skipped_steps": self.guard.skipped,
            "bad_records": sorted(self.bad_records),
            "ranks": ranks.world(),
            "identity": self.identity,
        }
        metadata = model_metadata(self.config.model, self.model.modalities)
        folder = self.folder / run_folder.CHECKPOINTS
        with ranks.raise_on_all():
            if self.telemetry is not None:
                # after a power failure no metrics before the checkpoint are missing
                self.telemetry.sync()
            if ranks.is_main():
                self.writer.save(
                    folder, self.step, model, state, record, metadata, self.config.run.keep
                )
        self.saved = self.step

    def _say(self, message: str) -> None:
        if self.telemetry is not None:
            self.telemetry.say(message)

    def _introduce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        self._say(
            f"{self.folder}: {parameters / 1e6:.1f} M parameters, {len(self.shards)} samples, "
            f"{ranks.world()} x {self.device.type} in "
            f"{str(self.dtype).removeprefix('torch.')}, matrix products "
            f"{self.rate / 1e9:.0f} GFLOP/s, {self.plan.total} steps"
        )
        for stage, steps in zip(self.plan.stages, self.plan.steps, strict=True):
            self._say(
                f"stage {stage.name}: {steps} steps, {stage.seasons} seasons of "
                f"{', '.join(stage.modalities)}, {'with' if stage.fusion else 'without'} fusion"
            )

    def _conclude(self) -> None:
        if self.step < self.plan.total:
            self._say(
                f"stopped by {self.signal} after step {self.step} of {self.plan.total}, "
                "which is saved; the same command goes on from there"
            )
        else:
            self._say(
                f"finished; look at {self.folder / 'loss.png'} and "
                f"{self.folder / 'reconstructions'}"
            )


def _named(stage: Stage, losses: Tensor) -> dict[str, Tensor]:
    names = (f"loss/{name}" for name in stage.modalities)
    return {"loss": losses.sum(), **dict(zip(names, losses, strict=True))}
