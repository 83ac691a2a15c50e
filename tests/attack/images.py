"""Plain folders of images: headers that claim what is not there, Exif, palettes, links, names."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import imagecodecs
import numpy as np

from seamo_fast import pack as pack_command
from seamo_fast.data import ShardSet
from tests.attack.files import SECRET, _jpeg_claim, _png_claim, _tiff_bomb, _tiff_claim, stolen
from tests.attack.ground import Ground
from tests.attack.isolate import Attack, command
from tests.tasks.datasets.mutations import mutate

SIDES: Final = (0, 1, 60_000, 65_535, 2**20, 2**31 - 1)
NAMES: Final = ("a\nb", "a\x1b[2Jb", "\u202eb", "é" * 100, "-rf", "a b", "#", "{}", "%s", "'")


def packed(rng: np.random.Generator, ground: Ground, folder: Path) -> Attack:
    """Plain images or a labelled dataset, one file of which is wrong, packed."""
    kind = str(rng.choice(["eurosat", "eurosat", "masks", "masks", "images", "worldcereal"]))
    goods = {"eurosat": ground.eurosat, "masks": ground.masks, "images": ground.masks}
    good = goods.get(kind, ground.labelled / kind)
    root = shutil.copytree(good, folder / "source")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    if rng.random() < 0.6 and kind in goods:
        how = spoil(rng, path)
    else:
        path.write_bytes(mutate(rng, path.read_bytes()))
        how = f"{path.relative_to(root)} mutated"
    layout = kind if kind in ("images", "worldcereal") else "auto"
    words: list[object] = ["--layout", layout, "--shard_size", 4]
    words += ["--part", "val" if kind == "worldcereal" else str(rng.choice(["all", "train"]))]
    if kind in goods and rng.random() < 0.4:
        words += ["--size", int(rng.choice([8, 16, 32, 44, 2**40]))]

    def door() -> ShardSet:
        command(pack_command.main, root, folder / "out", "--workers", 1, *words)
        return ShardSet(folder / "out")

    def check(shards: ShardSet) -> str:
        there = {each.name for each in folder.iterdir()}
        if not there <= {"source", "out"}:
            return f"wrote {there}"
        if stolen(folder / "out"):
            return "a local file is in the shards"
        whole = kind in goods and "--size" not in words
        return as_images(shards, good) if whole else ""

    return Attack(f"{kind} {how} {words}", door, check, 30.0)


def as_images(shards: ShardSet, good: Path) -> str:
    """Looks for packed images that are none of the source's; the damaged one may be."""
    files = [path for path in good.rglob("*") if path.suffix in (".jpg", ".png")]
    known = {np.moveaxis(imagecodecs.imread(path), -1, 0).tobytes() for path in files}
    [name] = [modality.name for modality in shards.modalities]
    tiles = [shards.read(number).bands[name][0] for number in range(len(shards))]
    others = sum(tile.tobytes() not in known for tile in tiles)
    return "" if others <= 1 else f"{others} images are not those of the files"


def spoil(rng: np.random.Generator, path: Path) -> str:
    """Puts an image with something wrong in place of one, or beside it; returns what."""
    how = str(rng.choice(list(WAYS)))
    WAYS[how](rng, path)
    return f"{path.name}: {how}"


def _claim(make: Callable[[np.random.Generator, int], bytes], suffix: str) -> Callable[..., None]:
    def write(rng: np.random.Generator, path: Path) -> None:
        path.unlink()
        data = make(rng, int(rng.choice(SIDES)))
        path.with_suffix(suffix).write_bytes(data)

    return write


def _exif(rng: np.random.Generator, path: Path) -> None:
    """A JPEG whose Exif holds any bytes, or an orientation of any number and type."""
    entries = b"".join(
        struct.pack("<HHII", 274, int(rng.integers(14)), int(rng.choice([0, 1, 2**31])),
                    int(rng.choice([0, 1, 5, 8, 9, 2**16, 2**32 - 1])))
        for _ in range(int(rng.integers(1, 4)))
    )  # fmt: skip
    count = int(rng.choice([1, 2, 3, 65_535]))
    tiff = b"II*\0" + struct.pack("<I", int(rng.choice([8, 8, 8, 0, 4, 2**32 - 1])))
    tiff += struct.pack("<H", count) + entries + struct.pack("<I", int(rng.choice([0, 8])))
    if rng.random() < 0.3:
        tiff = rng.bytes(int(rng.integers(200)))
    block = b"Exif\0\0" + tiff
    size = int(rng.choice([len(block) + 2, len(block) + 2, 2, 0, 65_535]))
    data = imagecodecs.jpeg8_encode(_noise(rng))
    path.unlink()
    path.with_suffix(".jpg").write_bytes(
        data[:2] + b"\xff\xe1" + struct.pack(">H", size) + block + data[2:]
    )


def _palette(rng: np.random.Generator, path: Path) -> None:
    """A PNG of indices whose palette is missing, short, long, twice or behind the pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side, depth = 64, int(rng.choice([1, 2, 4, 8, 8, 16]))
    row = b"\0" + rng.bytes(side * depth // 8)
    palette = chunk(b"PLTE", rng.bytes(int(rng.choice([0, 3, 4, 48, 768, 771, 9000]))))
    pixels = chunk(b"IDAT", zlib.compress(row * side))
    order = [[palette, pixels], [pixels, palette], [pixels], [palette, palette, pixels]]
    middle = order[int(rng.integers(len(order)))]
    alpha = chunk(b"tRNS", rng.bytes(int(rng.integers(300)))) if rng.random() < 0.3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, 3, 0, 0, 0))
    path.unlink()
    path.with_suffix(".png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + alpha + b"".join(middle) + chunk(b"IEND", b"")
    )


def _link(rng: np.random.Generator, path: Path) -> None:
    secret = path.parent / ".secret"
    secret.write_bytes(SECRET * 200)
    goals = [path.name, "nothing", "/dev/zero", "/dev", "..", secret.name, "/etc/passwd"]
    path.unlink()
    path.symlink_to(goals[int(rng.integers(len(goals)))])


def _pipe(rng: np.random.Generator, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _named(rng: np.random.Generator, path: Path) -> None:
    """A good or a bad image with a strange name."""
    name = NAMES[int(rng.integers(len(NAMES)))]
    good = rng.random() < 0.5
    path.with_name(f"{name}{path.suffix}").write_bytes(path.read_bytes() if good else b"\xff\xd8")


def _other(rng: np.random.Generator, path: Path) -> None:
    """An image of other sides, of one pixel, or of other bands."""
    shape = [(1, 1, 3), (7, 64, 3), (300, 5, 3), (64, 64), (64, 64, 4)][int(rng.integers(5))]
    path.unlink()
    path.with_suffix(".png").write_bytes(imagecodecs.png_encode(_noise(rng, shape)))


def _noise(rng: np.random.Generator, shape: tuple[int, ...] = (64, 64, 3)) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


WAYS: Final[dict[str, Callable[[np.random.Generator, Path], None]]] = {
    "png claim": _claim(_png_claim, ".png"),
    "jpeg claim": _claim(_jpeg_claim, ".jpg"),
    "tiff claim": _claim(_tiff_claim, ".tif"),
    "tiff bomb": _claim(_tiff_bomb, ".tif"),
    "exif": _exif,
    "palette": _palette,
    "link": _link,
    "pipe": _pipe,
    "name": _named,
    "other image": _other,
}
