"""One contestant of the race of training steps, in a process of its own, as a user would run it.

It makes a step for each line that it reads and answers with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seamo_fast.profile.variant import as_reference
from seamo_fast.training import allocator, build, optimizer, precision
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
            allocator.keep_freed_memory()  # as the command does
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
    """Counts the matrix products that happen, and those that attention and patch embedding are."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm"):
            a, b = args[-2:]
            self._note(a, b)
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            q, k, scores = _heads(*args[:2])
            self._note(q, k.mT)
            self._note(scores, k)
        elif name == "_scaled_dot_product_flash_attention_for_cpu_backward":
            q, k, scores = _heads(*args[1:3])
            self._note(q, k.mT)
            self._note(scores, k)
            self._note(scores.mT, q)
            self._note(scores.mT, q)
        elif name == "convolution":
            patches, weight = _patches(*args[:2])
            self._note(patches, weight.mT)
        elif name == "convolution_backward":  # the gradient of the weight alone
            patches, weight = _patches(*args[1:3])
            self._note(patches.new_empty(len(patches), len(weight)).mT, patches)
        return func(*args, **(kwargs or {}))

    def _note(self, a: Tensor, b: Tensor) -> None:
        self.count[tuple(a.shape), a.stride(), tuple(b.shape), b.stride()] += 1


def _heads(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns q, k and their scores, of the shapes and strides of one matrix a head."""
    q, k = (x.flatten(0, 1).contiguous() for x in (q, k))
    return q, k, q.new_empty(*q.shape[:2], k.shape[1])


def _patches(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns patches [count, P] and weight [D, P] of a convolution whose stride is its size."""
    weight = weight.flatten(1)
    return images.new_empty(images.numel() // weight.shape[1], weight.shape[1]), weight


class Machine:
    """The machine itself: how long the products of the reference's step take it, one by one."""

    def __init__(self, reference: Contestant) -> None:
        with Products() as products:
            reference.step()
        self.count = products.count
        self.device = reference.device
        self.flops = sum(count * _operations(product) for product, count in self.count.items())

    def step(self) -> float:
        """Returns the seconds that all products took."""
        return sum(
            count * _least_time(product, self.device) for product, count in self.count.items()
        )


def _operations(product: Product) -> int:
    a, _, b, _ = product
    return 2 * math.prod(a) * b[-1]


def _least_time(product: Product, device: torch.device) -> float:
    a, b = (
        torch.ones(_extent(shape, stride), device=device).as_strided(shape, stride)
        for shape, stride in (product[:2], product[2:])
    )
    out = torch.matmul(a, b)
    times = []
    for _ in range(3):
        precision.synchronize(device)
        start = time.perf_counter()
        torch.matmul(a, b, out=out)
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
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = contestant.step()
        precision.synchronize(contestant.device)
        seconds = time.perf_counter() - start
        yield {"seconds": seconds, "loss": loss, "memory": _resident("VmHWM") - before}


def rates(arguments: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Yields the FLOPs of the reference's products, then their time for each line."""
    allocator.keep_freed_memory()
    machine = Machine(Contestant("reference", "off", arguments.batch, arguments.decoded))
    yield {"flops": machine.flops}
    for _ in sys.stdin:
        yield {"seconds": machine.step()}


def main() -> None:
    """Answers until the standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("ours", "reference", "machine"))
    parser.add_argument("compile", choices=get_args(Compile))
    parser.add_argument("batch", type=int)
    parser.add_argument("decoded", type=float, nargs="?", default=1.0)
    arguments = parser.parse_args()
    for answer in (rates if arguments.name == "machine" else answers)(arguments):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
