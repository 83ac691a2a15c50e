"""python -m seamo_fast.build: what it says while it compiles, and when that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seamo_fast import build
from seamo_fast.kernels import _cxx, _native

COMPILER = """#!/bin/sh
for last; do :; done
echo "$@" >> "$(dirname "$0")/calls"
case "$*" in *"$REFUSED"*) echo "a.cpp:3: error: bad" >&2; exit 1;; esac
echo made > "$last"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compiler that notes its calls; it refuses what REFUSED names."""
    path = tmp_path / "fake-c++"
    path.write_text(COMPILER)
    path.chmod(0o755)
    for name, value in {
        "CXX": f"{path} --first",
        "CXXFLAGS": "-fmine",
        "LDFLAGS": "-lmine",
        "REFUSED": "nothing",
        "MAX_JOBS": "1",
        "SEAMO_FAST_CACHE": str(tmp_path / "cache"),
        "SEAMO_FAST_BUILD": "cpu",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_native, "load", _native.functools.cache(lambda: "not loaded"))
    return path


def test_a_line_for_each_source_and_where_the_module_is(
    compiler: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main([]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    count = len(_cxx._sources())
    assert [line.split("]")[0] for line in lines] == [
        f"[{number:2}/{count}" for number in range(1, count + 1)
    ]
    assert lines[0].split("] ")[1].startswith("bindings/autograd.cpp  ")
    folder = _native.cache_folder(_native.CPU)
    assert last == f"cpu: compiled into {folder}"
    assert (folder / _native._FILES[_native.CPU]).read_text() == "made\n"
    assert json.loads((folder / "_cpu.json").read_text())["failure"] is None


def test_flags_of_the_user_and_of_each_folder(compiler: Path) -> None:
    build.main([])
    *compiled, linked = (compiler.parent / "calls").read_text().splitlines()
    assert all(line.startswith("--first ") and "-fmine" in line for line in compiled)
    assert all(("-O3" in line) == ("/csrc/cpu/" in line) for line in compiled)
    assert all(("torch/include" in line) == ("/bindings/" in line) for line in compiled)
    assert "-shared" in linked
    assert "-lmine" in linked


def test_a_failure_shows_what_the_compiler_said(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REFUSED", "row_sums.cpp")
    assert build.main([]) == 2
    captured = capsys.readouterr()
    assert "a.cpp:3: error: bad\n" in captured.out
    assert captured.err == (
        "error: SEAMO_FAST_BUILD=cpu: fake-c++ failed: a.cpp:3: error: bad; "
        "then run python -m seamo_fast.build\n"
    )


def test_without_a_compiler(
    compiler: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main([]) == 2
    assert "the C++ compiler no-such-compiler was not found; install one" in capsys.readouterr().err
