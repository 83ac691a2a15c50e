"""What all CUDA kernels share: the library, its structs, errors, and the commands of nvcc."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from seamo_fast.kernels import _nvcc
from seamo_fast.kernels._gpu import _cuda
from tests.kernels import cuda_host

on_device = pytest.mark.usefixtures("cuda_device")


@on_device
def test_structs_are_those_of_the_library() -> None:
    rows = _cuda.struct("Rows")
    assert [name for name, *_ in rows._fields_] == ["data", "inner", "outer_stride", "stride"]
    assert ctypes.sizeof(rows) == 32
    made = dict(_cuda.struct("NormPixLoss")._fields_)
    assert made["pred"] is made["target"] is rows
    assert made["eps"] is ctypes.c_float
    assert made["loss"] is ctypes.c_void_p


@on_device
@pytest.mark.parametrize(
    ("shape", "strides", "expected"),
    [
        ((2, 3, 4), (12, 4, 1), (6, 4)),
        ((2, 3, 4), (24, 4, 1), (3, 4)),  # a slice of longer sequences
        ((2, 1, 4), (8, 1, 1), (2, 8)),
        ((5, 4), (6, 1), (5, 6)),
        ((4,), (1,), (1, 4)),
        ((2, 3, 4), (12, 1, 3), (6, 4)),  # columns apart: copied
        ((0, 4), (4, 1), (1, 0)),
    ],
    ids=str,
)
def test_rows(shape: tuple[int, ...], strides: tuple[int, ...], expected: tuple[int, int]) -> None:
    tensor = torch.arange(64).as_strided(shape, strides)
    rows = _cuda.rows(tensor)
    assert (rows.inner, rows.stride) == expected
    values = (ctypes.c_int64 * 64).from_address(rows.data) if tensor.numel() else []
    for row, line in enumerate(tensor.reshape(-1, 4).tolist()):
        start = row // rows.inner * rows.outer_stride + row % rows.inner * rows.stride
        assert values[start : start + 4] == line


@on_device
def test_a_matrix_is_one_block_of_rows() -> None:
    longer = torch.randn(2, 6, 4)[:, :3]
    assert _cuda.matrix(longer).stride == 4
    assert _cuda.matrix(longer).data != longer.data_ptr()
    assert _cuda.matrix(longer[0]).data == longer.data_ptr()


@on_device
def test_wrong_fields_are_named() -> None:
    with pytest.raises(TypeError, match=r"copy_rows takes .*'count'.*, but got \['rows'\]"):
        _cuda.run("copy_rows", rows=None)


@on_device
def test_a_launch_that_fails_raises() -> None:
    rows = torch.randn(2, 3, device=cuda_host.device())
    with pytest.raises(RuntimeError, match=r"seamo::copy_rows failed on .* \(CUDA error 1\)"):
        # integers are not copied
        _cuda.run("copy_rows", rows=_cuda.rows(rows), storage=6, count=2, width=3, to=rows)


def test_a_library_that_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    library = tmp_path / "broken.so"
    library.write_text("no library")
    before = _cuda.use(library)
    try:
        assert re.search("cannot be loaded .*: run python -m seamo_fast.build", str(_cuda.load()))
        with pytest.raises(RuntimeError, match="the CUDA kernels: it cannot be loaded"):
            _cuda.run("copy_rows")
    finally:
        _cuda.use(before)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", _nvcc.ARCHITECTURES),
        ("8.6", ("sm_86",)),
        ("8.0;9.0a 10.0+PTX", ("sm_80", "sm_90a", "sm_100", "compute_100")),
    ],
)
def test_architectures(
    monkeypatch: pytest.MonkeyPatch, words: str, expected: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", words)
    assert _nvcc.architectures() == expected


def test_an_architecture_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Ampere")
    with pytest.raises(_nvcc.CompileError, match=r"numbers like 9\.0a, but has Ampere"):
        _nvcc.architectures()


@pytest.fixture
def toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A toolkit whose nvcc writes its arguments to the file that it should make."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text('#!/bin/sh\nfor last; do :; done\n[ "$1" = --dryrun ] || echo "$@" > "$last"\n')
    nvcc.chmod(0o755)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda_runtime.h").touch()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    _nvcc.toolkit.cache_clear()
    yield tmp_path
    _nvcc.toolkit.cache_clear()


def test_a_missing_toolkit_is_explained(toolkit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toolkit / "include" / "cuda_runtime.h").unlink()
    with pytest.raises(_nvcc.CompileError, match=r"has no cuda_runtime\.h"):
        _nvcc.toolkit()
    monkeypatch.setenv("CUDA_HOME", str(toolkit / "none"))
    with pytest.raises(_nvcc.CompileError, match="nvcc was not found in"):
        _nvcc.toolkit()


def test_a_library_is_linked_from_all_sources(toolkit: Path) -> None:
    out = toolkit / "lib" / "made.so"
    _nvcc.build(out, ["sm_80", "compute_80"])
    assert "-shared -cudart=static" in out.read_text()
    assert all(f"{path.stem}.o" in out.read_text() for path in _nvcc.sources())
    assert [path.name for path in out.parent.iterdir()] == ["made.so"]


def test_commands_name_each_architecture(toolkit: Path) -> None:
    command = _nvcc.command(Path("a.cu"), Path("a.o"), ["sm_90a", "compute_80"], "-c")
    assert command[0] == str(toolkit / "bin" / "nvcc")
    assert "-gencode=arch=compute_90a,code=sm_90a" in command
    assert "-gencode=arch=compute_80,code=compute_80" in command
    assert command[-4:] == ["-c", "a.cu", "-o", "a.o"]


def test_the_first_error_of_nvcc_is_told(toolkit: Path) -> None:
    nvcc = toolkit / "bin" / "nvcc"
    nvcc.write_text(
        '#!/bin/sh\n[ "$1" = --dryrun ] || { echo "a.cu(3): error: bad" >&2; exit 1; }\n'
    )
    with pytest.raises(_nvcc.CompileError, match=r"nvcc failed: a\.cu\(3\): error: bad"):
        _nvcc.build(toolkit / "made.so", ["sm_80"])
    assert not (toolkit / "made.so").exists()
