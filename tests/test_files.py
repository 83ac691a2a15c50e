"""Files appear whole, readable by whom the umask says, or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from seamo_fast import files
from seamo_fast.data import ShardWriter
from seamo_fast.errors import DataError
from seamo_fast.files import read_yaml
from seamo_fast.modalities import Band, Modality
from seamo_fast.training.recovery import checkpoint
from tests.tools import memory_below


def test_a_small_file_is_on_the_disk_before_its_name_appears(
    tmp_path: Path, order_on_disk: list[str]
) -> None:
    files.write_text(tmp_path / "config.yaml", "text")
    assert order_on_disk.index("rename config.yaml") == 1
    assert order_on_disk[0].startswith("sync .config.yaml")


def unreadable(folder: Path) -> dict[str, Path]:
    """Something of each kind that is no regular file."""
    pipe, door = folder / "pipe", folder / "door"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(door))
    linked = folder / "linked"
    linked.symlink_to(pipe)
    return {"a named pipe": linked, "a socket": door, "a device": Path(os.devnull)}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("access", [files.open_regular, files.check_regular])
def test_only_regular_files_are_opened(tmp_path: Path, access: Callable[[Path], object]) -> None:
    for kind, path in unreadable(tmp_path).items():
        with pytest.raises(OSError, match=f"it is {kind}; expected a regular file: '{path}'"):
            access(path)
    with pytest.raises(IsADirectoryError, match="it is a folder; expected a regular file"):
        access(tmp_path)
    with pytest.raises(FileNotFoundError):
        access(tmp_path / "none")


def test_a_regular_file_is_opened_by_its_name_or_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"content")
    link.symlink_to(file)
    for path in (file, link):
        files.check_regular(path)
        with files.open_regular(path) as opened:
            assert opened.read() == b"content"


def test_what_a_killed_process_left_is_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    files.write_text(file, "first")
    process = os.fork()
    if process == 0:
        monkeypatch.setattr(Path, "replace", lambda *_: os._exit(9))
        files.write_text(file, "half of the sec")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9
    assert file.read_text() == "first"
    files.write_text(file, "second")
    assert file.read_text() == "second"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_text("first")
    for error in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises(type(error)), files.replacing(file) as temporary:  # noqa: PT012
            temporary.write_text("half of the sec")
            raise error
        assert file.read_text() == "first"
        assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_nothing_wrote_is_empty(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077])
def allowed(request: pytest.FixtureRequest, umask: Callable[[int], int]) -> int:
    """Sets a umask; returns the mode that files then have."""
    umask(request.param)
    return 0o666 & ~int(request.param)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*")}


def test_modes_are_those_of_the_umask(tmp_path: Path, allowed: int) -> None:
    files.write_text(tmp_path / "text", "x")
    files.write_json(tmp_path / "json", [1])
    with files.replacing(tmp_path / "weights") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    assert set(modes(tmp_path).values()) == {allowed}


def test_checkpoints_are_readable_by_whom_the_umask_says(tmp_path: Path, allowed: int) -> None:
    weights = {"weight": torch.zeros(3)}
    path = checkpoint.save(tmp_path, 1, weights, {}, {}, {}, keep=1)
    assert modes(path) == dict.fromkeys(
        ("model.safetensors", "optimizer.safetensors", "checkpoint.json"), allowed
    )


def test_shards_are_readable_by_whom_the_umask_says(tmp_path: Path, allowed: int) -> None:
    writer = ShardWriter(tmp_path, [Modality("one", (Band("A", 10),), "dn")], 1)
    values = np.arange(4, dtype=np.uint16).reshape(1, 1, 2, 2)
    writer.add("a", {"one": [values]}, {"one": [None]}, {"one": [True]})
    writer.finish()
    found = modes(tmp_path)
    folder = found.pop("shard-00000")
    assert folder == allowed | (allowed & 0o444) >> 2
    assert set(found.values()) == {allowed}
    assert set(found) == {"manifest.json", "one_10m.npy", "records.json", "report.json"}


def test_json_is_compact_and_has_no_nan(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    assert files.write_json(file, {"a": [1, None]}) == b'{"a":[1,null]}' == file.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(file, float("nan"))
    assert json.loads(file.read_text()) == {"a": [1, None]}


def test_what_cannot_be_written_is_named(tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    with pytest.raises(DataError, match=r"cannot write .*nowhere/x.json: No such file or dir"):
        files.write_json(tmp_path / "nowhere" / "x.json", 1)
    disk = small_disk(16)
    with pytest.raises(DataError, match=r"no space left .*x.json: 0\.\d MB are free; free"):
        files.write_json(disk / "x.json", "x" * 2**20)
    with pytest.raises(DataError, match=r"4\.2 MB are needed for this shard and 0\.\d MB are free"):
        files.write_json(disk / "x.json", "x" * 2**20, needed=4_200_000)
    assert list(disk.iterdir()) == []


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert files.read_regular(tmp_path / "file", 7) == b"content"
    with pytest.raises(OSError, match=r"it has 7 bytes; expected at most 6: "):
        files.read_regular(tmp_path / "file", 6)


def test_a_new_folder_is_nobodys_else(tmp_path: Path) -> None:
    wanted = tmp_path / "runs" / "a.b"
    found = []
    for _ in range(3):
        with files.new_folder(wanted) as folder:
            (folder / "results").touch()
        found.append(folder.name)
    assert found == ["a.b", "a.b-2", "a.b-3"]
    with files.new_folder(wanted) as folder, files.new_folder(wanted) as other:
        assert (folder.name, other.name) == ("a.b-4", "a.b-5")
    assert not folder.exists()  # nothing came of it


def test_a_results_folder_is_the_one_that_was_named(tmp_path: Path) -> None:
    for _ in range(2):
        with files.results_folder(str(tmp_path / "mine"), tmp_path / "runs", "out") as folder:
            (folder / "results").touch()
        assert folder == tmp_path / "mine"
    with files.results_folder(None, tmp_path / "runs", "out") as folder:
        (folder / "results").touch()
    assert folder == tmp_path / "runs"


def test_what_is_there_is_moved_aside(tmp_path: Path) -> None:
    assert files.move_aside(tmp_path, ("a", "b")) is None
    for number in (1, 2):
        (tmp_path / "a").write_text(str(number))
        assert files.move_aside(tmp_path, ("a", "b")) == tmp_path / f"previous-{number}"
        assert (tmp_path / f"previous-{number}" / "a").read_text() == str(number)
    assert not (tmp_path / "a").exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a: {b: 1}\na: {c: 1}", "the key 'a' comes again in line 2"),
        (b"a:\n  b: 1\n  c: 1\n  b: 1", "the key 'b' comes again in line 4"),
        (b"a: caf\xe9", "'utf-8' codec can't decode byte 0xe9"),
        (b"a: [1", "expected ',' or ']'"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b'a: !!int ""', "a value does not fit its tag (IndexError"),
        (b'a: !!float ""', "a value does not fit its tag (IndexError"),
        (b"a: !!bool x", "a value does not fit its tag (KeyError('x'))"),
        (b"a: !!timestamp x", "a value does not fit its tag (AttributeError"),
        (b"a: *b", "found undefined alias 'b'"),
        (b"a: 1\n---\na: 1", "expected a single document"),
        (b"a: " + 5000 * b"[", "maximum recursion depth exceeded"),
        (b"a: " + 40 * b"[" + 40 * b"]", "nested more than 30 deep"),
        (b"a: &a [*a]", "more than 10000 values, or they repeat themselves"),
        (BOMB.encode(), "more than 10000 values, or they repeat themselves"),
        (b"[" + 10_001 * b"1," + b"]", "more than 10000 values"),
        (b"#" * 2**20 + b"\n", "larger than 1048576 bytes"),
    ],
)
def test_yaml_that_is_no_settings_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=re.escape(reason)) as raised:
        read_yaml(file)
    assert "\n" not in str(raised.value)


def test_yaml_may_use_aliases_and_merge_keys(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: &a {b: 1, c: 2}\nd: {<<: *a, c: 3}\ne: [*a, *a]\n")
    inner = {"b": 1, "c": 2}
    assert read_yaml(file) == {"a": inner, "d": {"b": 1, "c": 3}, "e": [inner, inner]}
    file.write_text("")
    assert read_yaml(file) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "it has the key 'b' twice"),
        (
            '{"' + "k" * 10**6 + '": 1, "' + "k" * 10**6 + '": 1}',
            r"it has the key 'k+\.\.\.k+' twice",
        ),
        ("[NaN]", "it has NaN in place of a number"),
        ("[-Infinity]", "it has -Infinity in place of a number"),
        ("[" * 10**5 + "]" * 10**5, "it is nested too deep"),
        ('{"a":' * 10**5, "it is nested too deep"),
        ("1" * 5000, "integer string conversion"),
        ("[" + "[]," * 2**23 + "[]]", r"it takes 1\d{3} MiB of memory or more; JSON may take 1024"),
    ],
    ids=["twice", "long key", "NaN", "infinite", "lists", "objects", "digits", "large"],
)
def test_json_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    for read in (lambda: files.parse_json(text), lambda: files.read_json(path)):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert len(str(error.value)) < 200


def test_json_that_is_read(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, True, "\u00e9\n"], "b": {"a": {}, "c": [[]] * 10**6}}
    path = tmp_path / "a.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    path.write_text("[]")
    with memory_below(2**20):  # not what it might have needed
        files.read_json(path)


def test_a_json_file_larger_than_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b'["')
        file.truncate(2**31)  # a hole
    with pytest.raises(ValueError, match="it takes 1024 MiB of memory or more"):
        files.read_json(path)


def test_what_messages_repeat_of_a_file_is_short_and_on_one_line() -> None:
    assert files.shown("a\nb") == r"'a\nb'"
    assert len(files.shown(["x" * 10**6] * 10**6)) < 1000
    assert files.brief("a\nb\x00c") == "a b c"
    assert files.brief("x" * 10**6) == "x" * 1000 + " ..."
