"""Which races run, and what the JSON of pytest-benchmark says of the machine."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import torch

from seamo_fast.kernels import _native


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --full."""
    parser.addoption(
        "--full",
        action="store_true",
        help="all sizes, dtypes and contestants (an hour), not just the strongest rivals",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `full`, unless asked for."""
    if config.getoption("--full"):
        return
    left_out = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if not item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    """Without them every race would time the reference, and nothing would say so."""
    loaded = _native.load()
    if isinstance(loaded, str) and not torch.cuda.is_available():
        pytest.exit(f"races need the C++ kernels, but {loaded}", returncode=1)


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Adds what the report names beside the processor."""
    machine_info["torch"] = torch.__version__
    machine_info["capability"] = torch.backends.cpu.get_cpu_capability()
    machine_info["threads"] = torch.get_num_threads()
    machine_info["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine_info["command"] = shlex.join(("pytest", *map(str, config.invocation_params.args)))


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether --full was given."""
    return bool(pytestconfig.getoption("--full"))
