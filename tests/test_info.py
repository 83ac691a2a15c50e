"""The command `python -m seamo_fast.info`."""

from __future__ import annotations

import platform

import pytest
import torch

from seamo_fast import info, kernels


def test_it_names_versions_devices_and_each_operation(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([]) == 0
    told = capsys.readouterr().out
    for expected in (platform.python_version(), torch.__version__, "cpu", "cuda", "chosen"):
        assert expected in told
    for row in kernels.explain():
        (line,) = [x for x in told.splitlines() if x.split()[:2] == [row.op, row.backend]]
        assert row.reason in line
        assert line.split()[2] == ("yes" if row.chosen else "no")


def test_it_says_which_tiff_files_dali_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main([]) == 0
    told = capsys.readouterr().out
    for expected in ("data loaders", "pixel-interleaved uint8, uint16, float32", "by tifffile"):
        assert expected in told


def test_it_says_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEAMO_FAST_CACHE", "/somewhere/else")
    assert info.main([]) == 0
    assert "/somewhere/else" in capsys.readouterr().out
