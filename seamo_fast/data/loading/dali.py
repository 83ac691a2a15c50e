"""The DALI loader: the batches of `TileLoader`, copied and decoded by NVIDIA DALI.

One pipeline, on a CPU or a GPU. Its samples are single tiles: views of memory-mapped `.npy`
records, or TIFF files that `fn.decoders.image` decodes. Which tiles make batch i is decided outside
of it, by `Stream`, so a run resumes at any batch. What DALI cannot read, or would misread, is read
with tifffile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from seamo_fast.data.loading.loader import Loaded, Loader, read_batch
from seamo_fast.data.loading.stream import Buffers, Part, ahead
from seamo_fast.data.shards import ShardSet
from seamo_fast.data.shards.tiff import encode_plain, why_not_dali
from seamo_fast.errors import ConfigError, DataError

_LOG = logging.getLogger(__name__)
_TYPES: Final = {"float16": "FLOAT16", "float32": "FLOAT"}


class _Feed(NamedTuple):
    """What the pipeline makes a batch of: for each array the tiles of all rows and seasons."""

    part: Part
    tiles: list[list[np.ndarray]]


class DaliLoader(Loader):
    """Yields the batches that `TileLoader` yields, equal to the bit.

    Args:
        shards: Where the samples come from.
        device: Where the bands go; everything else stays on the CPU.
        options: The other arguments of `TileLoader`. `workers` threads read files and check them,
            and as many copy and decode; `prefetch` batches are made ahead.

    Attributes:
        bad_records: A message for each damaged record met so far.
        reasons: For each array why DALI does not read it; empty if it does.

    Raises:
        ConfigError: DALI is not installed.
        DataError: A modality is not stored, or more seasons are asked for than are stored.
        ValueError: Another argument is out of its range.
    """

    def __init__(
        self, shards: ShardSet, *, device: torch.device | str = "cpu", **options: Any
    ) -> None:
        super().__init__(shards, **options)
        import_dali()
        self._device = torch.device(device)
        self._encoded = shards.manifest.encoding == "tiff"
        self._specs = {
            array: shards.manifest.arrays[array]
            for arrays in self._stream.arrays.values()
            for array in arrays
        }
        self._told: set[tuple[str, str]] = set()
        self.reasons = {array: self._why_not(array) for array in self._specs}
        zeros = {name: np.zeros(spec.shape[1:], spec.dtype) for name, spec in self._specs.items()}
        self._blank = {
            name: encode_plain(tile) if self._decodes(name) else tile
            for name, tile in zeros.items()
        }
        for array, reason in self.reasons.items():
            if reason:
                _LOG.warning("%s of %s %s: tifffile reads it", array, shards.path, reason)

    def _why_not(self, array: str) -> str:
        """Looks at the first tile; each further one is looked at when it is read."""
        spec = self._specs[array]
        if not self._encoded or not len(self._stream.shards):
            return ""
        try:
            data = self._stream.shards.file(0, array, 0, verify=False)
        except DataError:
            return ""  # said when it is read
        return why_not_dali(data, spec.dtype, spec.shape[1:])

    def _decodes(self, array: str) -> bool:
        return self._encoded and not self.reasons[array]

    def _load(self) -> Iterator[Loaded]:
        number, failures = self._start, 0
        while True:
            for loaded in self._run(number):
                yield loaded
                number, failures = number + 1, 0
            batch, bad = read_batch(self._stream, number, Buffers(1), self._verify)
            failures += not bad
            if failures > self._prefetch + 1:  # it may have failed on a batch made ahead
                raise DataError(
                    f"DALI cannot read {self._stream.shards.path}, whose files are sound (its "
                    "message is in the log); use data.loader torch"
                )
            batch.bands = {
                name: [grid.to(self._device) for grid in grids]
                for name, grids in batch.bands.items()
            }
            yield Loaded(batch, bad)
            number += 1

    def _run(self, number: int) -> Iterator[Loaded]:
        """Yields batches from `number` on until DALI fails."""
        feeds = ahead(self._feed, count(number), self._workers, self._prefetch)
        # DALI refers to the tiles without owning them, until the batch is made.
        pending: deque[_Feed] = deque()

        def source() -> list[list[np.ndarray]]:
            pending.append(next(feeds))
            return pending[-1].tiles

        pipeline = self._pipeline(source)
        try:
            while True:
                outputs = pipeline.run(*self._stream_handle())
                part = pending.popleft().part
                yield Loaded(part.batch(self._stream.modalities, self._bands(outputs)), part.bad)
                number += 1
        except RuntimeError as error:
            _LOG.warning(
                "DALI failed on batch %d or one after it, which is read without it: %s",
                *(number, " ".join(str(error).split())),
            )
        finally:
            feeds.close()  # now, though the pipeline refers to it

    def _stream_handle(self) -> list[int]:
        if self._device.type == "cpu":
            return []
        return [torch.cuda.current_stream(self._device).cuda_stream]

    def _bands(self, outputs: Any) -> dict[str, list[torch.Tensor]]:
        grids = {
            array: from_dlpack(output.as_tensor()).unflatten(0, (-1, self._stream.seasons))
            for array, output in zip(self._specs, outputs, strict=True)
        }
        return {
            name: [grids[array] for array in arrays] for name, arrays in self._stream.arrays.items()
        }

    def _pipeline(self, source: Callable[[], list[list[np.ndarray]]]) -> Any:
        dali = import_dali()
        fn, types = dali.fn, dali.types
        gpu = self._device.type == "cuda"
        pipeline = dali.Pipeline(
            batch_size=len(self._stream.rows) * self._stream.seasons,
            num_threads=max(1, self._workers),
            device_id=(self._device.index or 0) if gpu else None,
            prefetch_queue_depth=self._prefetch,
            exec_dynamic=True,  # outputs stay valid as long as they are referred to
        )
        dtypes = {name: _dali_type(types, spec.dtype) for name, spec in self._specs.items()}
        with pipeline:
            inputs = fn.external_source(
                source,
                num_outputs=len(self._specs),
                batch=True,
                no_copy=True,
                dtype=[types.UINT8 if self._decodes(name) else dtypes[name] for name in dtypes],
                ndim=[1 if self._decodes(name) else 3 for name in dtypes],
            )
            tiles = []
            for name, values in zip(dtypes, inputs, strict=True):
                tile = fn.copy(values)  # the one copy: by DALI's threads, into its own memory
                if self._decodes(name):
                    image = fn.decoders.image(
                        tile,
                        device="mixed" if gpu else "cpu",
                        output_type=types.ANY_DATA,
                        dtype=dtypes[name],
                        adjust_orientation=False,
                    )
                    tile = fn.transpose(image, perm=[2, 0, 1])
                tiles.append(tile.gpu() if gpu else tile)
            pipeline.set_outputs(*tiles)
        pipeline.build()
        return pipeline

    def _feed(self, number: int) -> _Feed:
        part = self._stream.part(number)
        tiles: dict[str, list[np.ndarray]] = {name: [] for name in self._specs}
        for row, (_, index) in enumerate(part.drawn):
            found: dict[str, list[np.ndarray]] = {}
            seasons = part.seasons[row]
            if seasons is not None:
                try:
                    found = {name: self._tiles(index, name, seasons) for name in self._specs}
                except DataError as error:
                    part.damage(row, str(error))
            for name, column in tiles.items():
                column += found.get(name, [self._blank[name]] * self._stream.seasons)
        return _Feed(part, list(tiles.values()))

    def _tiles(self, index: int, array: str, seasons: list[int]) -> list[np.ndarray]:
        if self._decodes(array):
            return [self._file(index, array, season) for season in seasons]
        return self._stream.shards.tiles(index, array, seasons, self._verify)

    def _file(self, index: int, array: str, season: int) -> np.ndarray:
        shards, spec = self._stream.shards, self._specs[array]
        data = shards.file(index, array, season, self._verify)
        reason = why_not_dali(data, spec.dtype, spec.shape[1:])
        if not reason:
            return np.frombuffer(data, np.uint8)
        if (array, reason) not in self._told:
            self._told.add((array, reason))
            _LOG.warning(
                "%s of %s, season %d, %s: tifffile reads it and others like it",
                *(array, shards.describe(index), season, reason),
            )
        return encode_plain(shards.tiles(index, array, [season], verify=False)[0])


def _dali_type(types: Any, dtype: str) -> Any:
    return getattr(types, _TYPES.get(dtype, dtype.upper()))


def import_dali() -> Any:
    """Returns the package `nvidia.dali`, which has no types.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return import_module("nvidia.dali")
    except ImportError as error:
        raise ConfigError(
            f"data.loader dali needs NVIDIA DALI ({error}); install it with "
            "`pip install 'seamo_fast[dali]'`, or use data.loader torch"
        ) from error
