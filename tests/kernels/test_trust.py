"""Native code is loaded only from where nobody but this user and root may write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seamo_fast import build, files, info
from seamo_fast.errors import ConfigError
from seamo_fast.kernels import _native, _trust

LIBRARY = _native._FILES[_native.CPU]
SET = "set SEAMO_FAST_CACHE"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache where something lies that says it is the CPU kernels."""
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    folder = _native.cache_folder(_native.CPU)
    _trust.make_folder(folder)
    (folder / LIBRARY).write_bytes(b"code")
    _native._write_record(folder, _native.CPU, None)
    for path in folder.iterdir():
        path.chmod(0o644)
    monkeypatch.setattr(_native, "_HERE", tmp_path / "package")
    return folder


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes a path belong to another user, or this process to one; returns the owner's name."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534, follow_symlinks=False)
        return r"\w+ (\(65534\)|65534)"
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    return r"\w+ \(?\d+\)?"


def test_what_this_user_alone_may_write_is_taken(planted: Path) -> None:
    assert _native.find(_native.CPU) == planted / LIBRARY
    assert _native.candidates(_native.CPU) == [(planted / LIBRARY, None)]


PLACES: dict[str, Callable[[Path], Path]] = {
    "the library": lambda folder: folder / LIBRARY,
    "its record": lambda folder: folder / "_cpu.json",
    "its folder": lambda folder: folder,
    "the cache": lambda folder: folder.parents[1],
    "above the cache": lambda folder: folder.parents[2],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("bits", "who"), [(0o002, "everybody"), (0o020, "its group")])
def test_what_others_may_write_is_refused(planted: Path, place: str, bits: int, who: str) -> None:
    path = PLACES[place](planted)
    path.chmod(path.stat().st_mode | bits)
    assert _native.find(_native.CPU) == (
        f"it is not loaded from where others may write: {path} can be written by {who}, who could "
        f"put other code there: run chmod go-w {path}, or {SET}, then {_native.REMEDY}"
    )


@pytest.mark.parametrize("place", PLACES)
def test_what_belongs_to_another_is_refused(
    planted: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = give_away(PLACES[place](planted), monkeypatch)
    message = (
        rf"not loaded from where others may write: \S+ belongs to {owner}, who could .*{SET} to"
    )
    assert re.search(message, str(_native.find(_native.CPU)))


def test_a_folder_like_tmp_is_fine_if_what_lies_in_it_is_our_own(planted: Path) -> None:
    above = planted.parents[2]
    above.chmod(0o1777)
    assert _native.find(_native.CPU) == planted / LIBRARY
    planted.parents[1].chmod(0o1777)
    assert _native.find(_native.CPU) == planted / LIBRARY
    (planted / LIBRARY).chmod(0o1777)  # the bit means nothing of a file
    assert "can be written by everybody" in str(_native.find(_native.CPU))


def test_links_are_followed_step_by_step(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link leads through a folder that others may write to one that they may not."""
    for name in ("open", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "own" / "first").symlink_to("../open/second")
    (tmp_path / "open" / "second").symlink_to(planted.parents[1])
    monkeypatch.setenv(files.CACHE, str(tmp_path / "own" / "first"))
    assert Path(_native.find(_native.CPU)).samefile(planted / LIBRARY)
    (tmp_path / "open").chmod(0o777)
    assert f"{tmp_path / 'open'} can be written by everybody" in str(_native.find(_native.CPU))
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "open" / "second").unlink()
    (tmp_path / "open" / "second").symlink_to("second")
    assert _trust.objection(tmp_path / "own" / "first") == (
        f"{tmp_path / 'own' / 'first'} cannot be looked at (Too many levels of symbolic links)"
    )


def test_a_link_of_another_is_refused(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(planted.parents[1])
    monkeypatch.setenv(files.CACHE, str(tmp_path / "link"))
    give_away(tmp_path / "link", monkeypatch)
    assert " belongs to " in str(_native.find(_native.CPU))


def test_beside_the_package_a_library_is_trusted_as_the_package_is(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may change the code that loads it may change it: the folders above do not matter."""
    package = planted.rename(tmp_path / "package")
    module = package / "_native.py"
    module.write_text("")
    monkeypatch.setattr(_native, "__file__", str(module))
    package.chmod(0o777)
    assert _native.find(_native.CPU) == package / LIBRARY
    (package / LIBRARY).chmod(0o666)
    assert "can be written by everybody" in str(_native.find(_native.CPU))
    module.chmod(0o666)
    assert _native.find(_native.CPU) == package / LIBRARY
    if os.geteuid() == 0:
        os.chown(package / LIBRARY, 65534, 65534)
        assert " belongs to " in str(_native.find(_native.CPU))
        os.chown(module, 65534, 65534)
        assert _native.find(_native.CPU) == package / LIBRARY


def test_the_kernels_of_another_place_run_where_one_is_refused(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for path in planted.iterdir():
        (package / path.name).write_bytes(path.read_bytes())
    planted.chmod(0o777)
    assert _native.find(_native.CPU) == package / LIBRARY
    (refused, reason), (taken, none) = _native.candidates(_native.CPU)
    assert (refused, taken, none) == (planted / LIBRARY, package / LIBRARY, None)
    assert f"{planted} can be written by everybody" in str(reason)


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cache is for a build whose compiler succeeds at once."""

    def compile_to(out: Path, report: object) -> None:
        out.write_bytes(b"code")
        out.chmod(0o777)

    monkeypatch.setattr(_native._cxx, "build", compile_to)
    monkeypatch.setenv("SEAMO_FAST_BUILD", "cpu")
    monkeypatch.setenv(files.CACHE, str(tmp_path / "a" / "cache"))
    monkeypatch.setattr(_native, "_HERE", tmp_path / "package")
    return tmp_path / "a" / "cache"


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_built_passes_whatever_the_umask(
    compiled: Path, mask: int, umask: Callable[[int], int]
) -> None:
    umask(mask)
    assert build.main([]) == 0
    assert _native.find(_native.CPU) == _native.cache_folder(_native.CPU) / LIBRARY
    for path in (compiled.parent, compiled, *compiled.rglob("*")):
        assert not path.stat().st_mode & 0o022, path


def test_nothing_is_built_where_others_may_write(
    compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled.mkdir(parents=True)
    compiled.chmod(0o775)
    assert build.main([]) == 2
    assert capsys.readouterr().err == (
        f"error: nothing is compiled to where others may write: {compiled} can be written by its "
        f"group, who could put other code there: run chmod go-w {compiled}, or {SET}, then "
        f"{_native.REMEDY}\n"
    )
    assert not list(compiled.iterdir())


@pytest.mark.parametrize("home", ["", "relative", None])
def test_without_a_home_the_cache_is_asked_for(
    home: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(files.CACHE)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a number that no user has
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    message = (
        "there is no home folder for the cache ~/.cache/seamo_fast: set SEAMO_FAST_CACHE to a "
        "folder that nobody else may write"
    )
    with pytest.raises(ConfigError) as error:
        files.cache_folder()
    assert str(error.value) == message
    assert build.main([]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert _native.candidates(_native.CPU)[0] == (Path(), message)
    assert info.main([]) == 0
    assert message in capsys.readouterr().out
    monkeypatch.setenv(files.CACHE, "~nobody-of-this-name/cache")
    with pytest.raises(ConfigError, match="no home folder for the cache ~nobody-of-this-name"):
        files.cache_folder()
    assert not list(tmp_path.iterdir())


def test_info_says_owner_and_mode_and_why_one_is_refused(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted.parents[1].chmod(0o777)
    info.main([])
    lines = capsys.readouterr().out.splitlines()
    (cache,) = (line for line in lines if line.startswith("  cache "))
    assert cache.endswith("(SEAMO_FAST_CACHE moves it): " + _trust.describe(planted.parents[1]))
    assert cache.endswith(f" ({os.geteuid()}), mode 777")
    (kernels,) = (line for line in lines if line.startswith("  cpu kernels "))
    assert f"{planted / LIBRARY}: owner " in kernels
    assert f", mode 644; {_native.find(_native.CPU)}" in kernels


PROGRAM = """
from seamo_fast import kernels
chosen = {row.backend for row in kernels.explain("cpu") if row.chosen}
print(*chosen, *{row.reason for row in kernels.explain("cpu") if row.backend == "cpu"}, sep="\\n")
import torch
kernels.embed_patches(*(torch.zeros(s) for s in ((1, 1, 1, 4), (4, 4), (4,), (1, 4))),
                      torch.zeros(1, 1, 1, dtype=torch.int32), torch.zeros(1, 1, 4))
"""


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_a_refused_library_leaves_the_reference_or_is_an_error(planted: Path, wanted: str) -> None:
    (planted / LIBRARY).chmod(0o777)
    beside = Path(_native.__file__).parent / LIBRARY
    if beside.exists():
        pytest.skip("the kernels are compiled beside the package")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "SEAMO_FAST_KERNELS": wanted},
        capture_output=True,
        text=True,
    )
    assert f"{planted / LIBRARY} can be written by everybody" in done.stdout
    if wanted == "auto":
        assert (done.returncode, done.stdout.splitlines()[0]) == (0, "reference"), done.stderr
    else:
        assert done.returncode == 1
        assert "SEAMO_FAST_KERNELS=cpu cannot run" in done.stderr.splitlines()[-1]
