"""Labelled datasets in their published layouts and splits, each usable alone."""

from __future__ import annotations

from seamo_fast.tasks.datasets.bigearthnet.v1 import BigEarthNet
from seamo_fast.tasks.datasets.bigearthnet.v2 import BigEarthNetV2
from seamo_fast.tasks.datasets.corpora.terramesh import TerraMesh
from seamo_fast.tasks.datasets.corpora.worldcereal import WorldCereal
from seamo_fast.tasks.datasets.demo import DemoChange, DemoCover, DemoCrops, DemoFields
from seamo_fast.tasks.datasets.dfc2020 import DFC2020
from seamo_fast.tasks.datasets.eurosat import EuroSAT
from seamo_fast.tasks.datasets.folders import ClassFolder, MaskFolder
from seamo_fast.tasks.datasets.hls_burn_scars import HLSBurnScars
from seamo_fast.tasks.datasets.oscd import OSCD
from seamo_fast.tasks.datasets.reading.base import (
    IGNORE,
    LabelledDataset,
    LabelledTile,
    OnBad,
    SkippedTile,
)
from seamo_fast.tasks.datasets.reading.collate import LabelledBatch, collate
from seamo_fast.tasks.datasets.segmunich import SegMunich
from seamo_fast.tasks.datasets.sen1floods11 import Sen1Floods11
from seamo_fast.tasks.datasets.sen12ms import SEN12MS
from seamo_fast.tasks.datasets.so2sat import So2Sat
from seamo_fast.tasks.datasets.torchgeo import TorchGeoDataset

__all__ = [
    "DFC2020",
    "IGNORE",
    "OSCD",
    "SEN12MS",
    "BigEarthNet",
    "BigEarthNetV2",
    "ClassFolder",
    "DemoChange",
    "DemoCover",
    "DemoCrops",
    "DemoFields",
    "EuroSAT",
    "HLSBurnScars",
    "LabelledBatch",
    "LabelledDataset",
    "LabelledTile",
    "MaskFolder",
    "OnBad",
    "SegMunich",
    "Sen1Floods11",
    "SkippedTile",
    "So2Sat",
    "TerraMesh",
    "TorchGeoDataset",
    "WorldCereal",
    "collate",
]
