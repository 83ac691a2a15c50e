"""A series of GeoTIFFs that is right, and the mapping that says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

SERIES: Final[dict[str, Any]] = {
    "name": "made",
    "format": "geotiff",
    "seasons": 2,
    "pairing": "seasons",
    "modalities": {
        "s2": {
            "unit": "dn",
            "gsd": 10,
            "scale": 10000,
            "nodata": 0,
            "composite": ["B4", "B3"],
            "bands": {"B2": 1, "B3": 2, "B4": 3, "B8": 4},
            "files": r"s2_(\d{8})\.tif",
        },
        "s1": {"unit": "db", "gsd": 10, "bands": {"VV": 1, "VH": 2}, "files": r"s1_(\d{8})\.tif"},
    },
}


def write_series(root: Path) -> None:
    """Two places with two dates of two modalities."""
    for place in range(2):
        for season, day in enumerate(("20200301", "20200901")):
            folder = root / f"p{place}"
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng([place, season])
            for name, shape in (("s2", (16, 16, 4)), ("s1", (16, 16, 2))):
                pixels = rng.integers(200, 4000, shape, dtype=np.uint16)
                if name == "s1":
                    pixels = rng.normal(-14, 4, shape).astype(np.float32)
                options = {"planarconfig": "contig", "photometric": "minisblack", "metadata": None}
                tifffile.imwrite(folder / f"{name}_{day}.tif", pixels, **options)
