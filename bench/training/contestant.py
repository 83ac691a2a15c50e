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
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from seamo_fast.profile.variant import as_reference
from seamo_fast.training import build, memory, optimizer, precision
from seamo_fast.training.config import Compile, OptimConfig, PretrainConfig
from seamo_fast.training.parse import parse
from seamo_fast.views import ViewConfig

# how a product was called: sizes and strides of both factors
Product = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class Contestant:
    """A model, its optimiser and a batch of the demo data, of the preset `small`."""

    def __init__(self, name: str, compiled: Compile, size: int, decoded: float) -> None:
        settings = [f"--data.batch_size={size}", f"--views.decode_fraction={decoded}"]
        config: PretrainConfig = parse(["--config", "small", *settings])[0]
        self.device = precision.choose_device("auto")
        shards = build.open_shards(config.data.path)
        plan = build.make_plan(config, shards)
        stage = plan.stages[-1]
        batch = next(iter(build.make_loader(config, shards, stage)))
        views = build.draw_views(config, batch, stage.number)
        self.batch, self.views = batch.to(self.device), views.to(self.device)
        everything = replace(config, views=ViewConfig())
        self.flops = size * build.step_flops(everything, shards, stage)
        ours = build.make_model(config, shards, plan)
        if name == "ours":
            memory.keep_freed_memory()  # as the command does
            build.compile_model(ours, compiled, self.device)
            self.model: nn.Module = ours
        else:
            self.model = as_reference(ours)
            if compiled != "off":
                self.model = torch.compile(self.model, dynamic=False)
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
