"""Settings of both profiles that take a second on generated scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamo_fast.data.demo.dataset import demo_shards

TINY = """\
data: {{path: {shards}, batch_size: 2, workers: 0}}
model: {{width: 32, depth: 1, heads: 2, image_size: 16, patch_size: 4,
         decoder_width: 16, decoder_depth: 2, decoder_heads: 2}}
optim: {{blr: 0.1}}
schedule: {{kind: direct}}
run: {{device: cpu, precision: fp32}}
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of settings."""
    folder = tmp_path_factory.mktemp("profile")
    shards = demo_shards(folder, samples=6, size=24, seasons=2)
    file = folder / "tiny.yaml"
    file.write_text(TINY.format(shards=shards))
    return file
