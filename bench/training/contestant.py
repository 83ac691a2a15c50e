"""One contestant of the race of training steps, in a process of its own, as a user would run it.

It makes a step for each line that it reads and answers with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seamo_fast.data.demo import demo_shards
from seamo_fast.data.loader import TileLoader
from seamo_fast.data.shards import ShardSet
from seamo_fast.model.flops import forward_flops
from seamo_fast.model.seamo import SeaMo
from seamo_fast.reference import ReferenceSeaMo
from seamo_fast.training import build, memory, optimizer, precision
from seamo_fast.training.config import Compile, OptimConfig, PretrainConfig
from seamo_fast.training.parse import parse
from seamo_fast.views import ViewConfig, sample

SEASONS = 4

# how a product was called: sizes and strides of both factors
Product = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Contestant:
    """A model, its optimiser and a batch of the demo data, of the preset `small`."""

    def __init__(self, name: str, compiled: Compile, size: int, decoded: float) -> None:
        config: PretrainConfig = parse(["--config", "small"])[0]
        self.device = precision.choose_device("auto")
        shards = ShardSet(demo_shards())
        names = [modality.name for modality in shards.modalities]
        loader = TileLoader(shards, batch_size=size, seed=0, modalities=names, seasons=SEASONS)
        batch = next(iter(loader))
        views = sample(
            batch.ids,
            batch.epochs,
            seed=0,
            stage=0,
            seasons=SEASONS,
            modalities=len(names),
            num_patches=config.model.num_patches,
            config=ViewConfig(decode_fraction=decoded),
        )
        self.batch, self.views = batch.to(self.device), views.to(self.device)
        self.flops = (
            3 * size * forward_flops(config.model, shards.modalities, SEASONS, ViewConfig())
        )
        torch.manual_seed(0)
        reference = ReferenceSeaMo(config.model, shards.modalities)
        self.model: nn.Module = reference
        if name == "ours":
            memory.keep_freed_memory()  # as the command does
            ours = SeaMo(config.model, shards.modalities)
            ours.load_state_dict(reference.state_dict())
            build.compile_model(ours, compiled, self.device)
            self.model = ours
        elif compiled != "off":
            self.model = torch.compile(reference, dynamic=False)
        self.model.to(self.device)
        self.adamw = optimizer.build(self.model, OptimConfig())

    def step(self) -> float:
        """Makes a training step and returns its loss."""
        total = self.model(self.batch, self.views)[0]
        total.backward()
        optimizer.apply(self.adamw, self.model, 1e-4, None)
        return float(total.detach())


class Products(TorchDispatchMode):
    """Notes the matrix products that happen."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm"):
            a, b = args[-2:]
            self.count[tuple(a.shape), a.stride(), tuple(b.shape), b.stride()] += 1
        return func(*args, **(kwargs or {}))


def rate_of_products(contestant: Contestant) -> float:
    """Returns the FLOP/s at which this machine does the products of a step, one by one."""
    with Products() as products:
        contestant.step()
    operations = seconds = 0.0
    for product, count in products.count.items():
        (rows, depth), _, (_, columns), _ = product
        operations += count * 2 * rows * depth * columns
        seconds += count * _least_time(product, contestant.device)
    return operations / seconds


def _least_time(product: Product, device: torch.device) -> float:
    a, b = (
        torch.ones(_extent(shape, stride), device=device).as_strided(shape, stride)
        for shape, stride in (product[:2], product[2:])
    )
    out = torch.mm(a, b)
    times = []
    for _ in range(5):
        precision.synchronize(device)
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        precision.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _resident(key: str) -> int:
    """Returns VmRSS or VmHWM, the most it has been, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def answers(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Yields one answer for each line of the standard input."""
    before = _resident("VmRSS")
    contestant = Contestant(arguments.name, arguments.compile, arguments.batch, arguments.decoded)
    yield {"flops": contestant.flops, "threads": torch.get_num_threads()}
    for line in sys.stdin:
        if line.strip() == "rate":
            yield {"rate": rate_of_products(contestant)}
            continue
        start = time.perf_counter()
        loss = contestant.step()
        precision.synchronize(contestant.device)
        seconds = time.perf_counter() - start
        yield {"seconds": seconds, "loss": loss, "memory": _resident("VmHWM") - before}


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "reference"))
    parser.add_argument("compile", choices=get_args(Compile))
    parser.add_argument("batch", type=int)
    parser.add_argument("decoded", type=float, nargs="?", default=1.0)
    arguments = parser.parse_args()
    for answer in answers(arguments):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
