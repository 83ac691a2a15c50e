"""Figures of a run: the loss curve, and what the model makes of a few fixed samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from seamo_fast.data.loading.loader import TileLoader
from seamo_fast.data.shards.shard_set import ShardSet
from seamo_fast.files import replacing
from seamo_fast.model.seamo import SeaMo
from seamo_fast.tiles import TileBatch
from seamo_fast.training import batches, precision
from seamo_fast.training.config import PretrainConfig
from seamo_fast.training.distributed import ranks, sharding
from seamo_fast.training.recovery import run_folder
from seamo_fast.training.reporting import patch_images
from seamo_fast.training.reporting.telemetry import PROBE, read_metrics
from seamo_fast.training.schedule import Plan, Stage

_NO_STAGE = -1  # keys the figures' views; no training step sees them


class Figures:
    """Draws loss.png and reconstructions/step_XXXXXXXX.png in the run folder.

    Args:
        config: The run's settings.
        folder: The run folder.
        shards: Where the samples come from.
        plan: The run's stages.
    """

    def __init__(self, config: PretrainConfig, folder: Path, shards: ShardSet, plan: Plan) -> None:
        self._config = config
        self._folder = folder
        self._shards = shards
        self._seasons = max(stage.seasons for stage in plan.stages)
        self._plan = plan

    def write(self, model: SeaMo, stage: Stage, step: int, dtype: torch.dtype) -> None:
        """Draws both figures as of now, on rank 0; all ranks take part."""
        with ranks.raise_on_all():
            batch = self._batch(stage)
        rows = reconstruct(self._config, model, batch, stage, dtype)
        with ranks.raise_on_all():
            if ranks.is_main():
                self._draw(rows, stage, step)

    def due(self, step: int) -> bool:
        """Whether figures are drawn after a step: at the end of a stage, or every so often."""
        every = self._config.run.figures_every
        return step in self._plan.ends() or (every is not None and step % every == 0)

    def draw_missed(self, model: SeaMo, step: int, dtype: torch.dtype) -> None:
        """Draws the figures of the step that a run resumes at, if it was killed before them."""
        drawn = ranks.from_main(self._target(step).exists())
        if step and self.due(step) and not drawn:
            stage, _ = self._plan.locate(step - 1)
            self.write(model, stage, step, dtype)

    def _draw(self, rows: list[Row], stage: Stage, step: int) -> None:
        draw_losses(self._folder, self._plan)
        target = self._target(step)
        target.parent.mkdir(exist_ok=True)
        draw_reconstructions(target, rows, f"step {step}, stage {stage.name}")

    def _target(self, step: int) -> Path:
        return self._folder / "reconstructions" / f"step_{step:08d}.png"

    def _batch(self, stage: Stage) -> TileBatch:
        loader = TileLoader(
            self._shards,
            batch_size=self._config.run.figure_samples,
            seed=self._config.run.seed,
            modalities=stage.modalities,
            seasons=self._seasons,
            verify=False,
        )
        return next(iter(loader))


Row = tuple[str, list[list[np.ndarray] | None]]


@torch.no_grad()
def reconstruct(
    config: PretrainConfig, model: SeaMo, batch: TileBatch, stage: Stage, dtype: torch.dtype
) -> list[Row]:
    """Returns one row for each sample and modality.

    A row is its label and, for each season, three pictures: the region, what was visible, what
    was predicted; None for a missing group.
    """
    device = next(model.parameters()).device
    batch = batch.to(device)
    views = batches.draw_views(config, batch, _NO_STAGE).to(device)
    # a few samples are not worth programs of their own
    eager = torch.compiler.set_stance("force_eager")
    with sharding.whole(model), eager, precision.autocast(device, dtype):
        results = model.reconstruct(batch, views, fusion=stage.fusion)
    everything = torch.arange(config.model.num_patches, dtype=torch.int32, device=device)
    rows: list[Row] = []
    for b, sample in enumerate(batch.ids.tolist()):
        for m, name in enumerate(batch.modalities):
            embed = model.patches_of(name)
            index = everything.expand(1, batch.seasons, -1)
            grids = [grid[b : b + 1] for grid in batch.bands[name]]
            full, _ = embed.gather(grids, views.boxes[b : b + 1], index, config.model.image_size)
            panels = [
                patch_images.triptych(
                    full[0, t],
                    views.visible[b, t, m],
                    views.hidden[b, t, m],
                    results[name].prediction[b, t],
                    embed.modality,
                    config.model.patch_size,
                    config.model.norm_pix,
                )
                if batch.valid[b, t, m]
                else None
                for t in range(batch.seasons)
            ]
            rows.append((f"{sample} {name}", panels))
    return rows


def draw_reconstructions(target: Path, rows: list[Row], title: str) -> None:
    """Draws the rows of `reconstruct` as a PNG."""
    seasons = len(rows[0][1])
    titles = ("region", "visible", "predicted")
    size = (1.15 * 3 * seasons + 0.9, 1.15 * len(rows) + 0.9)
    figure = new_figure(size)
    axes = figure.subplots(len(rows), 3 * seasons, squeeze=False)
    for column, axis in enumerate(axes[0]):
        axis.set_title(f"season {column // 3 + 1}\n{titles[column % 3]}", fontsize=7)
    for (label, panels), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(label, fontsize=7)
        for t, panel in enumerate(panels):
            for number, axis in enumerate(line[3 * t : 3 * t + 3]):
                axis.set_xticks([])
                axis.set_yticks([])
                if panel is None:
                    axis.text(0.5, 0.5, "missing", ha="center", va="center", fontsize=7)
                else:
                    axis.imshow(panel[number], interpolation="nearest")
    figure.suptitle(title, fontsize=9)
    save_figure(figure, target)


def draw_losses(folder: Path, plan: Plan) -> None:
    """Draws loss.png from metrics.jsonl; a dashed line ends each stage but the last."""
    lines = read_metrics(folder / run_folder.METRICS)
    names = dict.fromkeys(
        key for line in lines for key, value in line.items() if _is_drawn(key) and value is not None
    )
    probes = [key for key in names if key.startswith(PROBE)]
    figure = new_figure((7, 7 if probes else 4))
    axis, *below = figure.subplots(2 if probes else 1, sharex=True, squeeze=False)[:, 0]
    _draw_curves(axis, lines, [key for key in names if key not in probes])
    for stage, steps, end in zip(plan.stages, plan.steps, plan.ends(), strict=True):
        axis.text(
            end - steps, 1.01, f" {stage.name}", fontsize=7, transform=axis.get_xaxis_transform()
        )
        if end < plan.total:
            axis.axvline(end, color="grey", linestyle="--", linewidth=0.8)
    axis.set_xlim(0, plan.total)
    axis.axhline(1.0, color="grey", linestyle=":", linewidth=0.8, label="each patch's mean")
    axis.set_xlabel("step")
    axis.set_ylabel("loss of hidden patches")
    axis.set_ylim(bottom=0)
    axis.legend()
    for lower in below:
        _draw_curves(lower, lines, probes)
        lower.set_xlabel("step")
        lower.set_ylabel("probe, validation part")
        lower.legend()
    save_figure(figure, folder / "loss.png")


def _draw_curves(axis: Any, lines: list[dict[str, Any]], names: list[str]) -> None:
    for name in names:
        points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        axis.plot(*zip(*points, strict=True), ".-", markersize=3, label=name.partition("/")[2])


def _is_drawn(key: str) -> bool:
    return key.startswith(("loss/", PROBE))


def new_figure(size: tuple[float, float]) -> Any:
    """Returns an empty figure of a width and height in inches."""
    from matplotlib.figure import Figure  # half a second that other commands need not wait

    return Figure(figsize=size, layout="constrained")


def save_figure(figure: Any, target: Path) -> None:
    """Writes a figure as a PNG, whole or not at all."""
    with replacing(target) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
