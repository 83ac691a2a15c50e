"""Labelled datasets by name: how each is opened, and which items train, validate and test.

Published parts are used as published. Where one is missing, a fixed rule fills it in:

- without any part: 60/20/20 within each class (`stratified_split`), whole places together;
- without validation: a fifth of the training part is held out in the same way;
- without a test part, the validation part is the test, as in the papers that use such a dataset,
  and validation comes from training as above;
- DFC2020: the contest's test part (5,128 patches) trains and its validation part (986) tests; ours,
  as no published use was at hand to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from seamo_fast.data.packing.sources.plain.folder import plain_modality
from seamo_fast.errors import ConfigError, DataError
from seamo_fast.modalities import Modality
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
from seamo_fast.tasks.datasets.reading.base import LabelledDataset
from seamo_fast.tasks.datasets.segmunich import SegMunich
from seamo_fast.tasks.datasets.sen1floods11 import Sen1Floods11
from seamo_fast.tasks.datasets.sen12ms import SEN12MS
from seamo_fast.tasks.datasets.so2sat import So2Sat
from seamo_fast.tasks.splits import Split, held_out, stratified_split

AnyDataset: TypeAlias = LabelledDataset[Any]
_EUROSAT_CLASSES: Final = {
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"),
    *("PermanentCrop", "Residential", "River", "SeaLake"),
}
_CHOICES: Final = ("seasons", "clouds")
_PLAIN: Final = ("modality", "classes")
DEMO: Final = Path("demo")


@dataclass(frozen=True)
class DatasetOptions:
    """What to take of a dataset, and what plain folders do not say themselves.

    Attributes:
        modalities: Names of the modalities to use, of datasets that have several; None for all.
        modality: What the images of plain folders hold: a registered modality, "rgb" if None.
        classes: Names of the classes of `mask_folder`, in the order of the values.
        seasons: Which seasons to use, from 0: of the four of demo places (None for all), or of the
            months of WorldCereal (None for four).
        clouds: Clouds over demo places, `usual` or `many`.
    """

    modalities: list[str] | None = None
    modality: str | None = None
    classes: list[str] | None = None
    seasons: list[int] | None = None
    clouds: Literal["usual", "many"] | None = None


Open: TypeAlias = Callable[[Path, DatasetOptions], AnyDataset]


class _Reader(NamedTuple):
    """How a dataset is opened, and what its folder holds that no other's does.

    Attributes:
        open: Opens all items.
        signs: Patterns of files or folders; any of them is enough.
        parts: Its published parts that train, validate and test.
        takes: Those options that it knows besides `modalities`.
    """

    open: Open
    signs: tuple[str, ...]
    parts: tuple[str, str, str] = ("train", "val", "test")
    takes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A dataset and its split.

    Attributes:
        name: Its name in `DATASETS`.
        dataset: All items.
        split: Numbers of those that train, validate and test.
        root: Its folder.
        choices: Options that its items depend on.
    """

    name: str
    dataset: AnyDataset
    split: Split
    root: Path = field(default_factory=Path)
    choices: dict[str, Any] = field(default_factory=dict)


def open_dataset(
    root: Path | str, name: str = "auto", options: DatasetOptions | None = None
) -> Opened:
    """Opens a labelled dataset and splits it.

    Args:
        root: Its folder.
        name: One of `DATASETS`; "auto" looks.
        options: See there.

    Raises:
        ConfigError: The name is unknown, or an option is missing or unknown.
        DataError: The folder is not what it should be, or a part has no items.
    """
    root, options = Path(root), options or DatasetOptions()
    name, dataset = open_items(root, name, options)
    choices = {option: getattr(options, option) for option in DATASETS[name].takes}
    return Opened(name, dataset, split_items(name, dataset), root, choices)


def open_items(root: Path, name: str, options: DatasetOptions) -> tuple[str, AnyDataset]:
    """Returns the name of a dataset and all its items; see `open_dataset`."""
    if name == "auto":
        name = "demo_fields" if root == DEMO else recognise(root)
    if name not in DATASETS:
        raise ConfigError(f"dataset must be auto or one of {', '.join(DATASETS)}, but got {name!r}")
    reader = DATASETS[name]
    for option in (*_PLAIN, *_CHOICES):
        if getattr(options, option) is not None and option not in reader.takes:
            raise ConfigError(f"{name} has no choice of {option}; leave --{option} out")
    try:
        dataset = reader.open(root, options)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    names = [modality.name for modality in dataset.modalities]
    if options.modalities is not None and sorted(options.modalities) != sorted(names):
        known, given = (", ".join(each) for each in (names, options.modalities))
        raise ConfigError(f"{name}: modalities must be [{known}], but got [{given}]")
    return name, dataset


def within_training(opened: Opened) -> Opened:
    """Returns a dataset whose validation part is the test, for figures that choose settings.

    A fixed fifth of the training part validates instead; the test part is in no part.

    Raises:
        DataError: The training part has only one item.
    """
    train, val = _held_out(opened.dataset, opened.split.train)
    return replace(opened, split=Split(train, val, opened.split.val))


def check_labels(opened: Opened) -> None:
    """Checks, before anything is trained, that every part has labels; reads none of them.

    Raises:
        DataError: A part has none.
    """
    dataset = opened.dataset
    for part, numbers in zip(("train", "validate", "test"), opened.split, strict=True):
        entries = (dataset.entries[number] for number in numbers)
        bare = [entry.id for entry in entries if not dataset.has_label(entry)]
        if bare:
            raise DataError(
                f"{opened.name}: {len(bare)} of {len(numbers)} items that {part} have no labels in "
                f"{opened.root}, such as {bare[0]}; add the folder or file of those labels",
                "missing",
            )


def recognise(root: Path) -> str:
    """Returns the name of the dataset that a folder holds.

    Raises:
        DataError: It looks like none.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder", "missing")
    for name, reader in DATASETS.items():
        if any(next(root.glob(sign), None) for sign in reader.signs):
            return name
    raise DataError(
        f"{root} looks like no known dataset; name it with --dataset, one of {', '.join(DATASETS)}"
    )


def split_items(name: str, dataset: AnyDataset) -> Split:
    """Returns the numbers of a dataset's items that train, validate and test.

    Raises:
        DataError: A part has no items.
    """
    if isinstance(dataset, EuroSAT):
        return dataset.split()
    parts = DATASETS[name].parts
    numbers: dict[str, list[int]] = {}
    for number, entry in enumerate(dataset.entries):
        numbers.setdefault(entry.split, []).append(number)
    train, val, test = (numbers.get(part, []) for part in parts)
    if not (train or val or test):
        return _split_places(name, dataset)
    if not test:
        val, test = [], val
    if train and test and not val:
        train, val = _held_out(dataset, train)
    for part, found in zip(parts, (train, val, test), strict=True):
        if not found:
            raise DataError(
                f"{name} has no items in its {part!r} part; the parts here: "
                f"{', '.join(f'{part!r} ({len(each)})' for part, each in numbers.items())}"
            )
    return Split(train, val, test)


def _split_places(name: str, dataset: AnyDataset) -> Split:
    places = _places(dataset, range(len(dataset)))
    if dataset.task != "classes" and len(places) < len(Split._fields):
        raise DataError(
            f"{name} has no published parts here, and items of {len(places)} place(s): such as "
            f"{dataset.entries[0].id}; training, validation and test need at least 3, or the lists "
            "of the parts"
        )
    split = stratified_split([_stratum(dataset, number) for number in places])
    return Split(*(_items(places, [list(places)[at] for at in part]) for part in split))


def _held_out(dataset: AnyDataset, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    places = _places(dataset, numbers)
    train, val = held_out(list(places), {number: _stratum(dataset, number) for number in places})
    return _items(places, train), _items(places, val)


def _places(dataset: AnyDataset, numbers: Sequence[int]) -> dict[int, list[int]]:
    """Returns the items of each place by the first of them."""
    found: dict[str, list[int]] = {}
    for number in numbers:
        found.setdefault(dataset.place_of(dataset.entries[number]), []).append(number)
    return {items[0]: items for items in found.values()}


def _items(places: Mapping[int, list[int]], chosen: Sequence[int]) -> list[int]:
    return sorted(number for first in chosen for number in places[first])


def _stratum(dataset: AnyDataset, number: int) -> str:
    """Returns the name of an item's class; one for all where an item has several."""
    if dataset.task != "classes":
        return "item"
    label = dataset.label_of(number)
    assert isinstance(label, int)
    return dataset.classes[label]


def _plain_modality(options: DatasetOptions) -> Modality | None:
    return None if options.modality is None else plain_modality(options.modality)


def _multimodal(kind: Callable[..., AnyDataset], **fixed: Any) -> Open:
    """Returns how a reader is opened that can leave modalities out."""

    def opened(root: Path, options: DatasetOptions) -> AnyDataset:
        chosen = {} if options.modalities is None else {"modalities": options.modalities}
        return kind(root, **chosen, **fixed)

    return opened


def _single(kind: Callable[..., AnyDataset]) -> Open:
    """Returns how a reader is opened that has one modality."""
    return lambda root, options: kind(root)


def _choosing(kind: Callable[..., AnyDataset], signs: tuple[str, ...], *takes: str) -> _Reader:
    """Returns how a reader is opened that has choices besides modalities."""

    def opened(root: Path, options: DatasetOptions) -> AnyDataset:
        given = {name: getattr(options, name) for name in ("modalities", *takes)}
        chosen = {name: value for name, value in given.items() if value is not None}
        return kind(root, **chosen)

    return _Reader(opened, signs, takes=takes)


def _demo(kind: Callable[..., AnyDataset], *takes: str) -> _Reader:
    """Returns how places that are generated are opened; the folder `demo` is the cache's."""

    def opened(root: Path, **chosen: Any) -> AnyDataset:
        return kind(None if root == DEMO else root, **chosen)

    return _choosing(opened, (), *takes)


def _mask_folder(root: Path, options: DatasetOptions) -> AnyDataset:
    if not options.classes:
        raise ConfigError(
            "mask_folder needs the names of the classes in the order of the masks' values, such as "
            "--classes '[water, land]'"
        )
    return MaskFolder(root, options.classes, _plain_modality(options))


def _class_folder(root: Path, options: DatasetOptions) -> AnyDataset:
    return ClassFolder(root, _plain_modality(options))


# In the order in which a folder is compared with them: plain folders last.
DATASETS: Final[dict[str, _Reader]] = {
    "bigearthnet_v2": _Reader(_multimodal(BigEarthNetV2), ("metadata.parquet", "BigEarthNet-S?")),
    "bigearthnet": _Reader(_multimodal(BigEarthNet), ("BigEarthNet-v1.0", "S2/S2*_MSIL2A_*")),
    "so2sat": _Reader(_multimodal(So2Sat), ("training.h5", "validation.h5", "testing.h5")),
    "dfc2020": _Reader(_multimodal(DFC2020), ("ROIs0000_*",), ("test", "", "val")),
    "sen12ms": _Reader(_multimodal(SEN12MS), ("ROIs[0-9]*_[a-z]*/s2_*",)),
    "segmunich": _Reader(_single(SegMunich), ("TUM_128", "dataset/train.txt")),
    "sen1floods11": _Reader(
        _multimodal(Sen1Floods11), ("v1.1/data", "data/flood_events", "LabelHand", "Labels")
    ),
    "hls_burn_scars": _Reader(
        _single(HLSBurnScars), ("training/*_merged.tif", "validation/*_merged.tif")
    ),
    "oscd": _Reader(_single(OSCD), ("Onera Satellite Change Detection dataset - Images",)),
    "eurosat": _Reader(
        _single(EuroSAT),
        ("2750", "EuroSAT_RGB", "EuroSAT_MS", *sorted(_EUROSAT_CLASSES), "ds/images"),
    ),
    "terramesh": _Reader(_multimodal(TerraMesh), ("LULC", "train/LULC", "val/LULC")),
    "worldcereal": _choosing(WorldCereal, ("*.nc",), "seasons"),
    "demo_cover": _demo(DemoCover, *_CHOICES),
    "demo_crops": _demo(DemoCrops, *_CHOICES),
    "demo_fields": _demo(DemoFields, *_CHOICES),
    "demo_change": _demo(DemoChange),
    "mask_folder": _Reader(_mask_folder, ("masks", "train/masks"), takes=_PLAIN),
    "class_folder": _Reader(_class_folder, ("*/",), takes=_PLAIN[:1]),
}
