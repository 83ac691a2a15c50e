"""What a pack says of itself, shard by shard and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from seamo_fast.data.packing.shard_job import Shard
from seamo_fast.data.shards import Manifest, Remark, record_bytes

_SHOWN: Final = 10  # remarks; the manifest has all


def shard_line(split: str, shard: Shard) -> str:
    """Returns what became of one shard; `split` is empty without splits."""
    state = "kept" if shard.kept else "packed"
    name = f"{split}/{shard.entry.name}" if split else shard.entry.name
    left_out = f", {len(shard.report.skipped)} skipped" if shard.report.skipped else ""
    return f"{state} {name}: {shard.entry.samples} samples{left_out}"


def summary(split: str, manifest: Manifest, items: int, out: Path) -> Iterator[str]:
    """Yields the lines about a shard set: its size, what was left out and what is unusual.

    Args:
        split: Its name, empty without splits.
        manifest: Its description.
        items: Of the source.
        out: Its folder.
    """
    samples = sum(entry.samples for entry in manifest.shards)
    if manifest.encoding == "npy":
        size = record_bytes(list(manifest.arrays.values())) * samples
    else:
        size = sum(file.stat().st_size for file in out.rglob("*.tif"))
    title = f"{split}: " if split else ""
    yield f"{title}packed {samples} samples of {items} items into {out} ({size / 1e6:.1f} MB)"
    rest = f", all in {out / 'manifest.json'}"
    yield from listed("skipped", manifest.skipped, rest)
    yield from listed("noted", manifest.noted, rest)


def listed(title: str, remarks: Sequence[Remark], rest: str) -> Iterator[str]:
    """Yields a heading with the number of each kind, then the first remarks.

    Args:
        title: "skipped" or "noted".
        remarks: All of them; without any nothing is yielded.
        rest: Where those that are not shown can be read.
    """
    if not remarks:
        return
    kinds = Counter(remark.kind for remark in remarks if remark.kind)
    yield f"{title} {len(remarks)}:" + "".join(f" {n} {kind}" for kind, n in kinds.most_common())
    for remark in remarks[:_SHOWN]:
        yield f"  {remark.what}: {remark.why}"
    if len(remarks) > _SHOWN:
        yield f"  and {len(remarks) - _SHOWN} more{rest}"
