"""What is built, installed and imported, and that the README, the Makefile and CI agree."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import seamo_fast
from seamo_fast._version import __version__

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text()
NOT_SOURCE = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache"
)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command to its end and returns what it printed; its failure shows all of that."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def python_files(folder: Path, installed_as: str) -> set[str]:
    return {
        f"{installed_as}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")
    }


def sources(folder: Path, installed_as: str) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"{installed_as}/{path.relative_to(folder).as_posix()}" for path in files}


@dataclass(frozen=True)
class Built:
    """A source archive of the working tree, and the wheel made from that archive alone."""

    source: Path
    sdist: Path
    wheel: Path
    installed: Path

    @property
    def wheel_names(self) -> set[str]:
        return set(zipfile.ZipFile(self.wheel).namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(REPOSITORY, folder / "source", ignore=NOT_SOURCE)
    backend = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    run(sys.executable, "-c", backend, cwd=folder / "source")
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    wheel_command = (*pip, "wheel", *offline, "--no-build-isolation", ".", "--wheel-dir", "..")
    run(*wheel_command, cwd=unpacked, SEAMO_FAST_BUILD="none")
    (wheel,) = folder.glob("*.whl")
    run(*pip, "install", *offline, "--target", folder / "installed", wheel, cwd=folder)
    return Built(folder / "source", sdist, wheel, folder / "installed")


def test_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    roots = {name.split("/")[0] for name in built.wheel_names}
    assert roots == {"seamo_fast", f"seamo_fast-{__version__}.dist-info"}
    expected = python_files(built.source / "seamo_fast", "seamo_fast")
    expected |= python_files(built.source / "kernels", "seamo_fast/kernels")
    expected |= sources(built.source / "csrc", "seamo_fast/csrc")
    yaml = (built.source / "seamo_fast").rglob("*.yaml")
    expected |= {path.relative_to(built.source).as_posix() for path in yaml}
    expected.add("seamo_fast/py.typed")
    assert {name for name in built.wheel_names if ".dist-info/" not in name} == expected
    assert f"seamo_fast-{__version__}.dist-info/licenses/LICENSE" in built.wheel_names


def test_wheel_brings_the_script_seamo(built: Built) -> None:
    name = f"seamo_fast-{__version__}.dist-info/entry_points.txt"
    points = zipfile.ZipFile(built.wheel).read(name).decode()
    assert points == "[console_scripts]\nseamo = seamo_fast.__main__:main\n"


def test_wheel_fits_every_platform(built: Built) -> None:
    assert built.wheel.name == f"seamo_fast-{__version__}-py3-none-any.whl"


def test_sdist_can_be_tested(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {"Makefile", "README.md", "LICENSE", ".ci/run", "setup.py", "tests/conftest.py"}
    expected |= python_files(built.source / "tests", "tests")
    expected |= python_files(built.source / "kernels", "kernels")
    expected |= python_files(built.source / "bench", "bench")
    expected |= sources(built.source / "csrc", "csrc")
    assert expected <= names


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_wheel_with_torch_at_hand_holds_the_cpu_kernels(built: Built, tmp_path: Path) -> None:
    shutil.unpack_archive(built.sdist, tmp_path)
    (unpacked,) = tmp_path.iterdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    offline = ("--no-index", "--no-deps")
    wheel_command = (*pip, "wheel", *offline, "--no-build-isolation", ".", "--wheel-dir", "..")
    run(*wheel_command, cwd=unpacked, SEAMO_FAST_BUILD="cpu")
    (wheel,) = tmp_path.glob("*.whl")
    assert "py3-none-any" not in wheel.name
    run(*pip, "install", *offline, "--target", tmp_path / "installed", wheel, cwd=tmp_path)
    script = "import sys; sys.path.insert(0, sys.argv[1]); from seamo_fast import kernels\n"
    script += "print({row.backend for row in kernels.explain('cpu') if row.chosen})"
    environment = {"SEAMO_FAST_CACHE": str(tmp_path / "cache")}
    out = run(
        sys.executable, "-I", "-c", script, tmp_path / "installed", cwd=tmp_path, **environment
    )
    assert out.splitlines()[-1] == "{'cpu'}"


def test_installed_wheel_imports_from_its_own_folder(built: Built) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import seamo_fast, seamo_fast.kernels\n"
        "print(seamo_fast.__file__, seamo_fast.kernels.__file__, sep='\\n')"
    )
    # -I keeps the working folder and PYTHONPATH away, as on a user's machine.
    out = run(sys.executable, "-I", "-c", script, built.installed, cwd=built.installed)
    assert out.splitlines()[-2:] == [
        str(built.installed / "seamo_fast" / "__init__.py"),
        str(built.installed / "seamo_fast" / "kernels" / "__init__.py"),
    ]


IMPORT_PROBE = """
import json, sys, time
import torch
started_by, written = [], []

def watch(event, args):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        started_by.append(event)
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        written.append(str(args[0]))

sys.addaudithook(watch)
before = time.process_time()
import seamo_fast
print(json.dumps({
    "seconds": time.process_time() - before,
    "processes": started_by,
    "written": written,
    "modules": sorted(sys.modules),
}))
"""


def test_import_is_light() -> None:
    """Under 2 s after torch, no process started, nothing written, no plotting or command line."""
    out = run(sys.executable, "-B", "-c", IMPORT_PROBE, cwd=REPOSITORY)
    seen = json.loads(out.splitlines()[-1])
    assert seen["seconds"] < 2
    assert seen["processes"] == []
    assert seen["written"] == []
    heavy = {"matplotlib", "tensorboard", "jsonargparse", "tifffile", "imagecodecs", "h5py"}
    assert heavy.isdisjoint(seen["modules"])


def test_version_is_the_same_everywhere() -> None:
    assert seamo_fast.__version__ == __version__
    assert importlib.metadata.version("seamo_fast") == __version__
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[({re.escape(__version__)}|Unreleased)\]", changelog, re.MULTILINE)


def test_every_public_name_exists() -> None:
    for name in seamo_fast.__all__:
        assert getattr(seamo_fast, name) is not None


def commands(text: str) -> list[str]:
    """Returns the lines of the shell blocks of a Markdown text, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = (line.partition("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]


def test_ci_runs_the_tests_of_the_readme() -> None:
    last = (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1]
    assert last == "make test"
    assert last in commands(README)
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def fake_python(folder: Path, before: str) -> str:
    """Returns a Python that runs its -c argument after `before`."""
    path = folder / "python-fake"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{before}\n$2"\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("import sys; sys.version_info = (3, 9, 2)", "needs Python 3.10 or newer"),
        ("import sys; sys.modules['ensurepip'] = None", "has no venv"),
        (None, "was not found"),
    ],
    ids=["too old", "no venv", "absent"],
)
def test_make_says_what_python_it_needs(tmp_path: Path, before: str | None, message: str) -> None:
    python = "python-absent" if before is None else fake_python(tmp_path, before)
    done = subprocess.run(
        ["make", "pretrain", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert "make PYTHON=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "venv").exists()
