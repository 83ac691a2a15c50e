"""Features and labels on disk, by what they were made of.

    FOLDER/<dataset>/statistics.json
    FOLDER/<dataset>/labels/<part>-00000.safetensors
    FOLDER/<dataset>/<extractor>/<part>-00000.safetensors

A name of a folder is a digest of all that its content depends on, and every file is written whole
or not at all. So what is there is right, and a command that was killed resumes where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from seamo_fast._version import __version__
from seamo_fast.errors import DataError
from seamo_fast.files import replacing, writing
from seamo_fast.tasks.datasets.open import Opened

FORMAT: Final = 2  # raise it when features of the same images and weights change
LABELS: Final = "labels"


class Store:
    """The cached chunks of one dataset.

    Args:
        root: Folder of all datasets' features.
        key: All that the items and their order depend on, JSON-able.
    """

    def __init__(self, root: Path, key: Mapping[str, Any]) -> None:
        self.folder = root / named({"format": FORMAT, "version": __version__, **key})

    def has(self, kind: str, part: str, chunk: int) -> bool:
        """Whether a chunk has been written.

        Args:
            kind: `LABELS`, or the name of an extractor's key.
            part: "train", "val" or "test".
            chunk: Its number.
        """
        return self._path(kind, part, chunk).is_file()

    def write(
        self, kind: str, part: str, chunk: int, tensors: Mapping[str, Tensor], **metadata: str
    ) -> None:
        """Writes a chunk.

        Raises:
            DataError: The disk is full or not writable.
        """
        path = self._path(kind, part, chunk)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                save_file(dict(tensors), temporary, metadata)

    def read(self, kind: str, part: str, chunk: int) -> dict[str, Tensor]:
        """Returns the tensors of a chunk, in the order of their names.

        Raises:
            DataError: It is damaged.
        """
        tensors, _ = self._read(kind, part, chunk)
        return tensors

    def metadata(self, kind: str, part: str, chunk: int) -> dict[str, str]:
        """Returns what a chunk says about itself.

        Raises:
            DataError: It is damaged.
        """
        _, metadata = self._read(kind, part, chunk, tensors=False)
        return metadata

    def _read(
        self, kind: str, part: str, chunk: int, tensors: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        path = self._path(kind, part, chunk)
        try:
            with safe_open(path, framework="pt") as file:
                names = sorted(file.keys()) if tensors else []
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it") from error

    def _path(self, kind: str, part: str, chunk: int) -> Path:
        return self.folder / kind / f"{part}-{chunk:05d}.safetensors"


def named(key: Mapping[str, Any]) -> str:
    """Returns a short name for a JSON-able key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]


def dataset_key(opened: Opened) -> dict[str, Any]:
    """Returns all that the items of a dataset depend on: its files, its reader and its split.

    A file counts by its place, size and time of change; every one below the folder does, as masks
    and lists are no less part of the dataset than images.
    """
    dataset = opened.dataset
    digest = hashlib.sha256()
    for line in sorted(_files(opened.root)):
        digest.update(f"{line}\n".encode())
    for entry in dataset.entries:
        digest.update(f"{entry.id}\t{entry.split}\n".encode())
    return {
        "reader": type(dataset).__name__,
        "files": digest.hexdigest(),
        "classes": dataset.classes,
        "modalities": [modality.to_dict() for modality in dataset.modalities],
        "choices": opened.choices,
        "split": hashlib.sha256(json.dumps(opened.split).encode()).hexdigest(),
    }


def _files(root: Path) -> list[str]:
    """Returns a line about each file below a folder; links to folders are followed once."""
    found = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):  # a link to nothing, or shut: its reader says so
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    place = path.relative_to(root).as_posix()
                    found.append(f"{place}\t{status.st_size}\t{status.st_mtime_ns}")
    return found
