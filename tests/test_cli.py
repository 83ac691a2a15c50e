"""What every command has in common: its usage, its errors, and `seamo NAME`."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seamo_fast.__main__ import COMMANDS, main
from seamo_fast.cli import Command
from seamo_fast.errors import ConfigError, DataError
from tests.conftest import Shut

USAGES = {
    "pack": "python -m seamo_fast.pack SOURCE OUT [--SETTING VALUE ...]",
    "stats": "python -m seamo_fast.stats SOURCE [--SETTING VALUE ...]",
    "view": "python -m seamo_fast.view SOURCE [--SETTING VALUE ...]",
    "pretrain": "python -m seamo_fast.pretrain [--config PRESET_OR_FILE] [--dry_run] "
    "[--SETTING VALUE ...]",
    "evaluate": "python -m seamo_fast.evaluate [CHECKPOINTS ...] --data DATA [--SETTING VALUE ...]",
    "finetune": "python -m seamo_fast.finetune [--SETTING VALUE ...]",
    "profile": "python -m seamo_fast.profile NAME [--help] [ARGUMENT ...]",
    "info": "python -m seamo_fast.info",
    "build": "python -m seamo_fast.build",
}


@dataclass(frozen=True)
class Inner:
    """Attributes:
    sure: A switch in a group.
    """

    sure: bool = False


@dataclass(frozen=True)
class Settings:
    """Attributes:
    source: A place.
    number: A number.
    words: A list.
    really: A switch.
    inner: A group.
    """

    source: Path
    number: int = 1
    words: list[str] | None = None
    really: bool = False
    inner: Inner = field(default_factory=Inner)


BY_PLACE = Command("x", Settings, "Does x.", positional=True, interrupted="run it again")
SOURCE = Path("there")


@pytest.mark.parametrize(
    "words",
    [
        ["a", "b", "--source", "there"],
        ["--source", "there", "a", "b"],
        ["a", "--source=there", "--really", "b"],
        ["--really", "true", "a", "--source", "there", "b"],
    ],
)
def test_words_without_a_key_are_gathered_in_a_list(words: list[str]) -> None:
    settings, _ = Command("x", Settings, "Does x.", rest="words").parse(words)
    assert (settings.words, settings.source) == (["a", "b"], SOURCE)
    assert settings.really == ("--really" in words)


def test_a_negative_value_takes_no_word_with_it() -> None:
    settings, _ = Command("x", Settings, "Does x.", rest="words").parse(
        ["a", "--number", "-2", "b", "--source", "there"]
    )
    assert (settings.number, settings.words) == (-2, ["a", "b"])


def test_a_word_that_looks_like_yaml_is_a_word() -> None:
    settings, _ = Command("x", Settings, "Does x.", rest="words").parse(
        ["null", "{a: 1}", "1", "--source", "there"]
    )
    assert settings.words == ["null", "{a: 1}", "1"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_a_usage_that_can_be_copied(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(SystemExit):
        main([name, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"usage: {USAGES[name]}"
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_all_commands_are_listed_with_what_they_do(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: seamo NAME [--help] [ARGUMENT ...]"
    for name, line in zip(COMMANDS, lines[2:], strict=True):
        file = COMMANDS[name].removesuffix(".py").replace("/", ".")
        described = importlib.import_module(f"seamo_fast.{file}").__doc__.splitlines()[0]
        assert line.split(maxsplit=1) == [name, described]


def test_every_module_that_can_be_run_is_a_command() -> None:
    package = Path(__file__).resolve().parents[1] / "seamo_fast"
    files = {
        str(path.relative_to(package))
        for path in [*package.glob("*.py"), *package.glob("*/__main__.py")]
        if 'if __name__ == "__main__"' in path.read_text()
    }
    assert files == {*COMMANDS.values(), "__main__.py"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "unknown command 'pretrian'; the nearest known is 'pretrain' (seamo --help"),
        (["profile", "stop"], "unknown command 'stop'; the nearest known is 'step' (python -m"),
        (["pack", "a", "b", "--splitz", "1"], "'splitz'; the nearest known is 'splits'"),
        (["pack", "a", "b", "--source", "c"], "unrecognized arguments: --source c"),
        (["pack", "a"], "arguments are required: out"),
        (["view", "/nowhere", "c"], "unrecognized arguments: c"),
        (["stats", "/nowhere", "--worker=2"], "'worker'; the nearest known is 'workers'"),
        (["info", "--wide"], "unknown setting 'wide'"),
        (["pretrain", "--run.folder=a\0b"], "an argument holds a NUL character"),
        (["build", "cuda"], "unrecognized arguments: cuda"),
    ],
)
def test_an_error_is_one_line_and_status_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["pack", "stats"])
def test_what_reads_data_starts_without_torch(name: str) -> None:
    loaded = "[name for name in ('torch', 'matplotlib') if name in sys.modules]"
    code = (
        "import sys; from seamo_fast.__main__ import main\n"
        f"try: main(['{name}', '--help'])\nexcept SystemExit: sys.stderr.write(str({loaded}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"


def test_the_package_itself_can_be_run() -> None:
    command = [sys.executable, "-m", "seamo_fast", "packs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the nearest known is 'pack'" in done.stderr


def test_arguments_become_settings(tmp_path: Path) -> None:
    assert BY_PLACE.parse(["there"]) == (Settings(SOURCE), set())
    given = ["--really", "there", "--words", "[a,b]", "--inner.sure", "--number=3"]
    assert BY_PLACE.parse(given)[0] == Settings(SOURCE, 3, ["a", "b"], True, Inner(True))
    assert not BY_PLACE.parse(["there", "--really", "false"])[0].really
    file = tmp_path / "x.yaml"
    file.write_text("number: 5\nreally: true\n")
    assert BY_PLACE.parse(["--config", str(file), "there"])[0] == Settings(SOURCE, 5, really=True)


NO_MEMORY = "error: out of memory; take less at once, or a smaller model: "


def test_a_file_of_another_user_is_one_line(tmp_path: Path, shut: Shut) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("number: 1")
    message = f"{file} cannot be read: Permission denied"
    with shut(file), pytest.raises(ConfigError, match=message):
        BY_PLACE.parse(["--config", str(file), "there"])


GROUP = "must hold settings such as `sure:`, but got"
REPEATED = "x.yaml is not a YAML file of settings: the key 'number' comes again in line 2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml must hold settings such as `source:`, but got None"),
        ("- number: 1", "x.yaml must hold settings such as `source:`, but got [{'number': 1}]"),
        ("inner:", f"inner in x.yaml {GROUP} None"),
        ("inner: [sure]", f"inner in x.yaml {GROUP} ['sure']"),
        ("inner: 5", f"inner in x.yaml {GROUP} 5"),
        ("inner: {sure: {a: 1}}", "unknown setting 'inner.sure.a' in x.yaml"),
        ("number: [1]", "Expected a <class 'int'>. Got value: [1]"),
        ("number:", "number in x.yaml must have a value, but got null"),
        ("inner: {sure: }", "inner.sure in x.yaml must have a value, but got null"),
        ("inner.sure: ", "inner.sure in x.yaml must have a value, but got null"),
        ("number: 1\nnumber: 2", REPEATED),
        ("number: &a [*a]", "x.yaml is not a YAML file of settings: it holds more than"),
        ("1: 2", "unknown setting '1' in x.yaml"),
    ],
)
def test_a_file_of_another_shape_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        BY_PLACE.parse(["--config", "x.yaml", "there"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{a: {}}", "unknown setting 'inner.a' in --inner"),
        ("{sure: true, a: 1}", "unknown setting 'inner.a' in --inner"),
        ("{sure: true", "--inner {sure: true is no YAML: "),
        ("{sure: true, sure: false}", "is no YAML: the key 'sure' comes again in line 1"),
        ("{sure: null}", "inner.sure in --inner must have a value, but got null"),
    ],
)
def test_a_group_on_the_command_line_is_checked_as_one_in_a_file(value: str, message: str) -> None:
    for given in (["--inner", value], [f"--inner={value}"]):
        with pytest.raises(ConfigError, match=re.escape(message)) as raised:
            BY_PLACE.parse([*given, "there"])
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["pack", "stats", "view", "pretrain", "finetune", "profile step"])
def test_every_command_refuses_a_broken_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / "x.yaml"
    given = {"pack": ["a", "b"], "stats": ["a"], "view": ["a"], "finetune": ["--data", "a"]}
    for data in (b"", b"- 1", b"seed: 1\nseed: 1", b"\xff", b"a: &a [*a]", b"a: " + 999 * b"["):
        file.write_bytes(data)
        command = [*name.split(), "--config", str(file), *given.get(name, [])]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {file} ")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("failure", "status", "line"),
    [
        (DataError("bad data"), 2, "error: bad data\n"),
        (ConfigError("bad settings"), 2, "error: bad settings\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'\n"),
        (MemoryError("no room"), 2, f"{NO_MEMORY}no room\n"),
        (
            RuntimeError("CPU: can't allocate memory: 3 GB\nstack"),
            2,
            f"{NO_MEMORY}CPU: can't allocate memory: 3 GB\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted; run it again\n"),
    ],
)
def test_a_failure_is_one_line_and_a_status(
    failure: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(settings: Settings) -> None:
        raise failure

    assert BY_PLACE.run(fail, ["there"]) == status
    assert capsys.readouterr().err == line


def test_a_failure_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        BY_PLACE.run(lambda settings: settings.number // 0, ["there"])


def test_a_process_of_its_own_says_where_it_crashed() -> None:
    code = (
        "import ctypes, sys; from tests.test_cli import BY_PLACE\n"
        "sys.argv[1:] = ['there']; BY_PLACE.run(lambda _: ctypes.string_at(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONFAULTHANDLER": ""},
    )
    assert "Fatal Python error: Segmentation fault" in done.stderr
