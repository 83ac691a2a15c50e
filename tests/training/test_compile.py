"""Regional compilation: no graph break, and nothing compiled after the first step of a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seamo_fast.data import ShardWriter
from seamo_fast.tiles import TileBatch
from seamo_fast.training import batches, loop, model_setup
from seamo_fast.training.config import Compile, PretrainConfig, StageLength
from tests.training.conftest import OPTIC, RADAR

Settings = Callable[..., PretrainConfig]
Step = tuple[int, bool]  # number of the stage, and whether the batch has all its groups
pytestmark = pytest.mark.usefixtures("no_figures", "quick_rate")
counters = torch._dynamo.utils.counters


@pytest.fixture(autouse=True)
def own_counters() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


@pytest.fixture
def complete_shards(tmp_path: Path) -> Path:
    """Eight places of two seasons with all their groups."""
    writer = ShardWriter(tmp_path / "complete", (OPTIC, RADAR), 2, source="made", shard_size=8)
    rng = np.random.default_rng(0)
    for number in range(8):
        optic = [rng.integers(1, 5000, (2, n, s, s)).astype(np.uint16) for n, s in ((2, 8), (1, 4))]
        radar = [rng.normal(-12, 3, (2, 2, 8, 8)).astype(np.float32)]
        nothing: dict[str, list[Any]] = {name: [None, None] for name in ("optic", "radar")}
        everything = {name: [True, True] for name in ("optic", "radar")}
        writer.add(str(number), {"optic": optic, "radar": radar}, nothing, everything)
    writer.finish()
    return tmp_path / "complete"


def run(
    config: PretrainConfig, monkeypatch: pytest.MonkeyPatch, backend: str
) -> list[tuple[Step, int]]:
    """Runs, and returns each step with the number of programs that torch compiled in it."""
    compile_module, draw = torch.nn.Module.compile, batches.draw_views
    train_step = loop.Trainer._train_step
    steps: list[Step] = []
    programs = [0]

    def note_batch(config: PretrainConfig, batch: TileBatch, stage: int) -> Any:
        steps.append((stage, batch.complete))
        return draw(config, batch, stage)

    def note_programs(self: loop.Trainer, *arguments: Any) -> None:
        train_step(self, *arguments)
        programs.append(counters["stats"]["unique_graphs"])

    with monkeypatch.context() as patch:
        patch.setattr(
            torch.nn.Module,
            "compile",
            lambda self, **options: compile_module(self, backend=backend, **options),
        )
        patch.setattr(batches, "draw_views", note_batch)
        patch.setattr(loop.Trainer, "_train_step", note_programs)
        loop.pretrain(config)
    return list(zip(steps, np.diff(programs).tolist(), strict=True))


def assert_compiled_once(found: list[tuple[Step, int]]) -> None:
    """Programs appear where a stage meets such a batch for the first time, and nowhere else."""
    seen: set[Step] = set()
    for step, programs in found:
        assert (programs > 0) == (step not in seen), (step, programs)
        seen.add(step)
    assert counters["graph_break"] == {}
    assert sum(programs for _, programs in found) == counters["stats"]["unique_graphs"]


def make_config(settings: Settings, **changes: Any) -> PretrainConfig:
    """A run of the three stages, whose blocks are compiled one by one."""
    return settings(
        data__workers=0,  # batches are noted as they are drawn
        model__decoder_depth=2,
        run__compile="regional",
        schedule__kind="unimodal_first",
        schedule__unimodal=StageLength(1, 1.0),
        schedule__single_season=StageLength(1, 1.0),
        schedule__multi_season=StageLength(3, 1.0),
        **changes,
    )


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_nothing_is_compiled_after_the_first_step_of_a_stage(
    settings: Settings, complete_shards: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    found = run(make_config(settings, data__path=str(complete_shards)), monkeypatch, backend)
    assert [step for step, _ in found] == [(0, True)] * 2 + [(1, True)] * 2 + [(2, True)] * 6
    assert_compiled_once(found)


def test_missing_groups_change_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that happen to lack no group are treated like the others."""
    found = run(make_config(settings, data__batch_size=2), monkeypatch, "aot_eager")
    assert {complete for (stage, complete), _ in found if stage == 2} == {False}
    assert_compiled_once(found)


@pytest.mark.parametrize(("limit", "expected"), [(8, 64), (100, 100)])
def test_torch_may_compile_as_many_programs_as_the_stages_need(
    settings: Settings, limit: int, expected: int
) -> None:
    config = settings()
    shards = batches.open_shards(config.data.path)
    model = model_setup.make_model(config, shards, batches.make_plan(config, shards))
    with torch._dynamo.config.patch(recompile_limit=limit):
        model_setup.compile_model(model, "regional", torch.device("cpu"))
        assert torch._dynamo.config.recompile_limit == expected


@pytest.mark.parametrize("how", ["off", "regional", "full"])
def test_what_is_compiled_has_one_graph_and_static_shapes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, how: Compile
) -> None:
    config = settings(model__decoder_depth=2)
    shards = batches.open_shards(config.data.path)
    model = model_setup.make_model(config, shards, batches.make_plan(config, shards))
    compiled: list[torch.nn.Module] = []

    def note(module: torch.nn.Module, **options: Any) -> None:
        assert options == {"fullgraph": True, "dynamic": False}
        compiled.append(module)

    monkeypatch.setattr(torch.nn.Module, "compile", note)
    with torch._dynamo.config.patch(recompile_limit=64):
        model_setup.compile_model(model, how, torch.device("cpu"))
    blocks = model_setup.transformer_blocks(model)
    expected = {"off": [], "regional": list(blocks), "full": [model]}[how]
    assert [id(module) for module in compiled] == [id(module) for module in expected]


@pytest.mark.parametrize(
    ("how", "device", "triton", "expected"),
    [
        ("auto", "cuda", True, "regional"),
        ("auto", "cuda", False, "off"),
        ("auto", "cpu", True, "off"),
        ("full", "cpu", False, "full"),
        ("off", "cuda", True, "off"),
    ],
)
def test_auto_compiles_where_it_pays(
    monkeypatch: pytest.MonkeyPatch, how: Compile, device: str, triton: bool, expected: str
) -> None:
    monkeypatch.setattr(model_setup, "has_triton", lambda: triton)
    assert model_setup.choose_compile(how, torch.device(device)) == expected
