"""Small labelled data of every task whose classes a probe can tell, and small weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
from safetensors.torch import save_file

from seamo_fast.modalities import Band, Modality, get_modality
from seamo_fast.model import ModelConfig, SeaMo
from seamo_fast.model.weights import model_metadata
from seamo_fast.tasks.datasets import TorchGeoDataset
from seamo_fast.tasks.datasets.open import Opened
from seamo_fast.tasks.datasets.reading.base import Task
from seamo_fast.tasks.splits import Split

SMALL = ModelConfig(16, 1, 1, image_size=32, decoder_width=16, decoder_depth=1, decoder_heads=1)
OPTICAL = Modality("optical", (Band("B2", 10, 490), Band("B4", 10, 665)), "dn", scale=10000.0)
RADAR = Modality("radar", (Band("VV", 10),), "db")
COLOURS = np.array([[200, 60, 60], [60, 200, 60]])


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """Weights of Sentinel-2 L2A (whose bands EuroSAT has) and RGB."""
    torch.manual_seed(seed)
    model = SeaMo(SMALL, [get_modality("s2l2a"), ready(get_modality("rgb"))])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path, model_metadata(model.config, model.modalities))
    return path


def ready(modality: Modality) -> Modality:
    """A modality with statistics."""
    bands = len(modality.bands)
    return modality.with_statistics([100.0] * bands, [50.0] * bands, "toy")


def toy(root: Path, task: Task, items: int = 30, seasons: int = 2, seed: int = 0) -> Opened:
    """Two modalities at several seasons; each class brightens a band of one of them."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    data = [_item(task, seasons, rng, number) for number in range(items)]
    dataset = TorchGeoDataset(
        data, {"optical": OPTICAL, "radar": RADAR}, ("a", "b", "c"), ignore=255, task=task
    )
    order = np.random.default_rng(1).permutation(items).tolist()
    cut = (items // 2, items * 3 // 4)
    return Opened("toy", dataset, Split(*map(sorted, _cut(order, *cut))), root)


def _cut(order: list[int], low: int, high: int) -> tuple[list[int], list[int], list[int]]:
    return order[:low], order[low:high], order[high:]


def _item(task: Task, seasons: int, rng: np.random.Generator, number: int) -> dict[str, Any]:
    side = 20 if task == "mask" else 16
    optical = rng.normal(2000, 200, (seasons, 2, side, side))
    radar = rng.normal(-12, 1, (seasons, 1, side, side))
    if task == "multilabel":
        flags = np.array([number % 2, number // 2 % 2, number // 4 % 2])
        optical += 2000 * flags[:2, None, None]
        radar += 8 * flags[2]
        label = {"label": flags}
    elif task == "mask":
        mask = np.repeat(np.repeat(rng.integers(0, 3, (3, 3)), 8, 0), 8, 1)[:side, :side]
        optical += 2000 * (mask[None] == np.arange(2)[:, None, None])
        mask[0, :2] = 255
        label = {"mask": mask}
    else:
        optical[:, number % 2] += 2000
        label = {"label": np.array(number % 2)}
    return {"optical": optical.astype(np.float32), "radar": radar.astype(np.float32), **label}


def write_mask_folder(root: Path, images: int = 4, size: tuple[int, int] = (44, 50)) -> Path:
    """RGB images of two colours, and which is where; no side is a multiple of a patch."""
    for part, count in {"train": images, "val": 2, "test": 2}.items():
        for number in range(count):
            rng = np.random.default_rng([len(part), number])
            mask = np.repeat(np.repeat(rng.integers(0, 2, (6, 7)), 8, 0), 8, 1)
            mask = mask[: size[0], : size[1]]
            image = (COLOURS[mask] + rng.normal(0, 10, (*size, 3))).clip(0, 255).astype(np.uint8)
            for folder, values in (("images", image), ("masks", mask.astype(np.uint8))):
                path = root / part / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(values)))
    return root
