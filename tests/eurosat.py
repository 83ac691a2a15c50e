"""Small datasets in the layouts of EuroSAT."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from seamo_fast.tasks.datasets.eurosat import Kind

CLASSES = ("Forest", "River", "SeaLake")


def make_image(kind: Kind, label: int, number: int) -> np.ndarray:
    """Returns [64, 64, C]: noise about a colour that tells the class."""
    rng = np.random.default_rng([label, number])
    if kind == "eurosat_rgb":
        colour = 60 + 40 * np.eye(3)[label % 3]
        return (colour + rng.normal(0, 10, (64, 64, 3))).clip(0, 255).astype(np.uint8)
    colour = 1000 + 400 * label + 50 * np.arange(13)
    return (colour + rng.normal(0, 100, (64, 64, 13))).astype(np.uint16)


def make_eurosat(root: Path, kind: Kind, images: int = 10) -> Path:
    """Writes class folders of `images` files each."""
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(1, images + 1):
            write(root / name / f"{name}_{number}", make_image(kind, label, number))
    return root


def write(stem: Path, image: np.ndarray) -> Path:
    """Writes uint8 [64, 64, 3] as a JPEG, anything else as a pixel-interleaved TIFF."""
    if image.dtype == np.uint8:
        path = stem.with_suffix(".jpg")
        path.write_bytes(imagecodecs.jpeg8_encode(image, level=95))
    else:
        path = stem.with_suffix(".tif")
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    return path
