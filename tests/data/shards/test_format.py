"""The format of shards is described once, and what is written is what it describes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from seamo_fast import data
from seamo_fast.data import shards

REPOSITORY = Path(__file__).resolve().parents[3]
FORMAT = inspect.getdoc(shards) or ""


def described(title: str) -> set[str]:
    """The keys below a title."""
    block = re.search(rf"^    {title}.*\n((?:      .*\n)+)", FORMAT, re.M)
    assert block is not None
    lines = re.findall(r"^      (\w+(?:, \w+)*)  ", block[1], re.M)
    return {key for line in lines for key in line.split(", ")}


def test_the_docs_quote_it() -> None:
    body = FORMAT.partition("\n\n")[2]
    assert f"```text\n{body}\n```" in (REPOSITORY / "docs" / "data.md").read_text()


@pytest.mark.parametrize("encoding", ["npy", "tiff"])
def test_what_is_written_has_the_keys_and_files_that_are_described(
    write_shards: Callable[..., Path], encoding: str
) -> None:
    path = write_shards(encoding=encoding)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest) == described("manifest.json")
    records = json.loads((path / "shard-00000" / "records.json").read_text())
    assert set(records[0]) == described("records.json")
    names = {each.name for each in (path / "shard-00000").iterdir()}
    arrays = {name if encoding == "tiff" else f"{name}.npy" for name in manifest["arrays"]}
    assert names == arrays | {"records.json", "report.json"}


def test_public_names() -> None:
    assert set(data.__all__) == {"Sample", "ShardSet", "ShardWriter", "TileLoader"}
    for name in shards.__all__:
        assert getattr(shards, name) is not None
    assert {"Sample", "ShardSet", "ShardWriter"} <= set(shards.__all__)
