"""The audit of GPU kernels: what it finds in binaries, and that the kernels have no faults."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.audit import __main__ as command
from bench.audit import binary, roofline, run, table
from seamo_fast import kernels
from tests.conftest import REPOSITORY

ROW = table.Row(
    backend="triton",
    op="tm_attention",
    kernel="forward",
    inputs="bfloat16 k=100",
    configuration="warps 4",
    target="sm_90",
    registers=128,
    spill_bytes=0,
    shared=40960,
    occupancy=0.25,
    tensor="HGMMA",
    wide_loads=20,
    wide_stores=4,
)
EXPECTED = {
    "compilers": {"triton": "3.0"},
    "rows": {ROW.name: {name: getattr(ROW, name) for name in table.MEASURED}},
}


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "compiler", lambda backend: "3.0")


def changed(**changes: Any) -> list[table.Row]:
    return [dataclasses.replace(ROW, **changes)]


def test_a_good_kernel_has_no_faults() -> None:
    assert table.faults([ROW]) == []
    assert table.regressions([ROW], EXPECTED) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spill_bytes": 8}, "spills 8 bytes"),
        ({"tensor": ""}, "no tensor-core instruction"),
        ({"wide_loads": 0}, "no loads of 16 bytes"),
        ({"shared": 232449}, "232449 bytes of shared memory are too many"),
        ({"configuration": "not launched"}, "no case launches it"),
        ({"backend": "cuda", "kernel": "forward<float16, 64>", "tensor": ""}, "no tensor-core"),
        ({"op": "norm_pix_loss", "tensor": "", "wide_loads": 0}, "no loads of 16 bytes"),
    ],
)
def test_faults(changes: dict[str, Any], message: str) -> None:
    (fault,) = table.faults(changed(**changes))
    name, _, found = fault.partition(": ")
    assert name == changed(**changes)[0].name
    assert found.startswith(message)


def test_float32_may_spill() -> None:
    assert table.faults(changed(inputs="float32", spill_bytes=8, tensor="")) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spill_bytes": 8}, "spills 8 bytes, 0 before"),
        ({"occupancy": 0.125}, "occupancy 0.125, 0.25 before"),
        ({"tensor": ""}, "lost HGMMA"),
        ({"wide_loads": 0}, "lost its loads of 16 bytes"),
    ],
)
def test_regressions(changes: dict[str, Any], message: str) -> None:
    (regression,) = table.regressions(changed(**changes), EXPECTED)
    assert regression == f"{ROW.name}: {message}"


def test_improvements_are_none() -> None:
    assert table.regressions(changed(occupancy=0.5, registers=96), EXPECTED) == []


def test_another_compiler_may_need_more_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "compiler", lambda backend: "4.0")
    assert table.regressions(changed(occupancy=0.125), EXPECTED) == []
    assert len(table.regressions(changed(occupancy=0.125, tensor=""), EXPECTED)) == 1


def test_a_kernel_that_is_not_in_the_table() -> None:
    (regression,) = table.regressions(changed(kernel="new"), EXPECTED)
    assert "not in the table" in regression


def test_a_kernel_that_is_only_in_the_table() -> None:
    other = dataclasses.replace(ROW, kernel="gone")
    expected = {"compilers": {}, "rows": {other.name: {}}}
    (lost,) = table.lost([ROW], expected)
    assert lost == f"{other.name}: in the table, but not compiled"
    # what was not audited is not missed
    assert table.lost(changed(backend="cuda"), expected) == []
    assert table.lost(changed(target="sm_80"), expected) == []
    assert table.lost(changed(op="embed_patches"), expected) == []


def test_written_table_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(table, "EXPECTED", tmp_path / "table.json")
    table.write([ROW, *changed(kernel="old")])
    table.write([ROW])
    assert table.read() == EXPECTED


def test_an_update_keeps_what_was_not_audited(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(table, "EXPECTED", tmp_path / "table.json")
    other = changed(backend="cuda")
    table.write([ROW])
    table.write(other)
    written = table.read()
    assert written["compilers"] == {"triton": "3.0", "cuda": "3.0"}
    assert list(written["rows"]) == sorted([ROW.name, other[0].name])


@pytest.mark.parametrize("backend", run.BACKENDS)
def test_every_operation_of_a_backend_is_audited(backend: str) -> None:
    folder = Path(kernels.__path__[0])
    there = {path.parent.name for path in folder.glob(f"*/{backend}_impl.py")}
    assert len(there) == 5
    assert {case.op for case in run.Scope([backend], []).cases(backend)} == there
    # and what a case launches is in the table
    rows = {tuple(name.split(" | ")[i] for i in (1, 3)) for name in table.read()["rows"]
            if name.startswith(backend)}  # fmt: skip
    assert {(case.op, case.inputs) for case in run.Scope([backend], []).cases(backend)} == rows


def test_a_quick_audit_does_not_make_the_table() -> None:
    with pytest.raises(SystemExit):
        command.main(["--quick", "--update"])


def test_a_backend_that_cannot_be_compiled_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "obstacle", lambda backend: "no compiler")
    assert command.main(["--quick"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "triton is left out: no compiler",
        "cuda is left out: no compiler",
    ]


def test_the_committed_table_has_no_faults() -> None:
    """Without a compiler: what it says of every configuration."""
    rows = []
    for name, measured in table.read()["rows"].items():
        backend, op, kernel, inputs, configuration, target = name.split(" | ")
        names = (backend, op, kernel, inputs, configuration, target)
        rows.append(table.Row(*names, **measured))
    assert {row.target for row in rows} == set(binary.TARGETS)
    assert table.faults(rows) == []


def test_least_time() -> None:
    work = roofline.Work("op", "forward", 3.35e9, 989e6, 0)
    seconds, binding = roofline.least_time(work, roofline.DEVICES["H100"])
    assert (seconds, binding) == (pytest.approx(1e-3), "memory")


def test_every_operation_has_a_least_time() -> None:
    lines = command.roofline_table().splitlines()
    assert len(lines) == 1 + len(roofline.works())
    assert lines[0].split() == ["op", "direction", "MB", "GFLOP", "A100", "H100", "B200"]


def run_audit(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-m", "bench.audit", *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=run.BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    reason = run.obstacle(request.param)
    if reason is not None:
        pytest.skip(f"the audit of {request.param} kernels: {reason}")
    return str(request.param)


def test_base_shape_on_the_smallest_target(backend: str) -> None:
    # as much as fits an ordinary run: nvcc takes longest for kernels that multiply matrices
    ops = {"triton": "assemble_tokens,tm_attention", "cuda": "assemble_tokens,norm_pix_loss"}
    run_audit("--quick", "--backends", backend, "--targets", "sm_80", "--ops", ops[backend])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_configuration(backend: str) -> None:
    run_audit("--backends", backend)


SPILLING = """
import os
os.environ.pop("TRITON_INTERPRET", None)
from bench.audit import run, table
from seamo_fast.kernels.embed_patches import triton_impl
triton_impl._HALF = triton_impl._blocks((128, 128, 4, 3))
scope = run.Scope(["triton"], ["sm_80"], ["embed_patches"], quick=True)
for line in table.faults(run.audit(scope)):
    print(line)
"""


@pytest.mark.slow
def test_a_spill_is_found() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", SPILLING], cwd=REPOSITORY, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "spills" in done.stdout
