"""Pixels come from the files of the source, and from nothing that these name or are not."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from seamo_fast.data import ShardSet
from seamo_fast.data.packing.packer import pack
from seamo_fast.data.packing.sources import open_source
from seamo_fast.data.packing.sources.formats.geo import tiff_position
from seamo_fast.data.packing.sources.formats.hdf5 import own_variable
from seamo_fast.data.packing.sources.formats.tiff_images import read_tiff
from seamo_fast.errors import DataError
from seamo_fast.pack import main
from seamo_fast.tasks.datasets.so2sat import So2Sat
from tests.data.packing.fuzzing import KINDS
from tests.data.packing.published import write_group
from tests.tasks.datasets.layouts import write_so2sat

SECRET = b"content of a local file " * 400
LINE = "name: t\nformat: netcdf\ntime: t\nseasons: 2\nmodalities:\n  s1: {unit: db, gsd: 10, "
MAPPING = f"{LINE}dtype: uint16, bands: {{VV: VV, VH: VH}}}}\n"


def external(file: Any, name: str, folder: Path) -> None:
    secret = [(str(folder / "secret.txt"), 0, 1024)]
    file.create_dataset(name, shape=(2, 16, 16), dtype="u2", external=secret)


def virtual(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    layout = h5py.VirtualLayout((2, 16, 16), "u2")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (2, 16, 16))
    file.create_virtual_dataset(name, layout)


def external_link(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file[name] = h5py.ExternalLink(str(folder / "other.h5"), "/x")


def link_to_a_pipe(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    os.mkfifo(folder / "pipe.h5")
    file[name] = h5py.ExternalLink(str(folder / "pipe.h5"), "/x")


def soft_link_over_an_external_one(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file["away"] = h5py.ExternalLink(str(folder / "other.h5"), "/")
    file[name] = h5py.SoftLink("/away/x")


def linked_in_a_ring(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    file["ring"] = h5py.SoftLink(f"/{name}")
    file[name] = h5py.SoftLink("/ring")


def plugin(file: Any, name: str, folder: Path) -> None:
    h5py = pytest.importorskip("h5py")
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, 16, 16))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((2, 16, 16))
    kind = h5py.h5t.NATIVE_UINT16
    h5py.h5d.create(file.id, name.encode(), kind, space, properties)


LEADING_OUT = {
    external: "has its numbers in another file, .*secret.txt",
    virtual: "is virtual, made of other variables or files",
    external_link: "VV is a link to another file, .*other.h5",
    link_to_a_pipe: "VV is a link to another file, .*pipe.h5",
    soft_link_over_an_external_one: "VV is a link to another file, .*other.h5",
    linked_in_a_ring: "VV is behind more than 16 links",
    plugin: "is packed with filter 32015 .*, which needs a plugin",
}


def numbers() -> np.ndarray:
    return np.arange(512, dtype="u2").reshape(2, 16, 16)


@pytest.fixture
def cube(tmp_path: Path) -> Callable[[Callable[[Any, str, Path], None]], Path]:
    """Returns a function that writes a NetCDF-4 file whose VV leads out of it."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret.txt").write_bytes(SECRET)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET[:1024], "u2").reshape(2, 16, 16)
    (tmp_path / "m.yaml").write_text(MAPPING)
    (tmp_path / "src").mkdir()

    def write(lead: Callable[[Any, str, Path], None]) -> Path:
        with h5py.File(tmp_path / "src" / "a.nc", "w") as file:
            file["t"] = [0.0, 90.0]
            file["t"].attrs["units"] = "days since 2020-01-01"
            lead(file, "VV", tmp_path)
            file["VH"] = numbers()
        return tmp_path / "src"

    return write


@pytest.mark.timeout(60)
@pytest.mark.parametrize("lead", LEADING_OUT)
def test_a_variable_of_another_file_is_refused(
    lead: Callable[[Any, str, Path], None],
    cube: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = cube(lead), tmp_path / "out"
    with pytest.raises(DataError, match=LEADING_OUT[lead]):
        open_source(source, mapping=str(tmp_path / "m.yaml"))
    assert main([str(source), str(out), "--mapping", str(tmp_path / "m.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_links_and_filters_of_the_file_itself_are_followed(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("g/x", data=numbers(), chunks=True, compression="lzf", shuffle=True)
        file["soft"] = h5py.SoftLink("/g/x")
        file["g/near"] = h5py.SoftLink("x")
        file["hard"] = file["g/x"]
        file["group"] = h5py.SoftLink("/g")
        file["dots"] = h5py.SoftLink("/g/./x")
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("g/x", "/g/x", "soft", "g/near", "hard", "group/x", "./g/./x", "dots"):
            np.testing.assert_array_equal(own_variable(file, tmp_path, name)[:], numbers())
        for name in ("g", "nothing", "g/nothing", "g/x/y"):
            assert own_variable(file, tmp_path, name) is None


@pytest.mark.parametrize("name", ["sen1", "sen2", "label"])
def test_so2sat_reads_its_own_file_alone(name: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_so2sat(tmp_path)
    path = next(tmp_path.glob("*.h5"))
    shutil.copy(path, tmp_path / "other")
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "other"), f"/{name}")
    with pytest.raises(DataError, match=f"{name} is a link to another file"):
        So2Sat(tmp_path)


def test_a_tiff_file_names_no_other(tmp_path: Path) -> None:
    """As OME-TIFF does, whose bands may be in other files."""
    tifffile.imwrite(
        tmp_path / "secret.tif",
        np.full((3, 8, 8), 777, "u2"),
        photometric="minisblack",
        metadata=None,
    )
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="{max(c - 1, 0)}" PlaneCount="1"><UUID FileName='
        f'"{"../secret.tif" if c else "a.tif"}">urn:uuid:{min(c, 1)}</UUID></TiffData>'
        for c in range(4)
    )
    ome = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="P:0" DimensionOrder="XYZCT" '
        'Type="uint16" SizeX="8" SizeY="8" SizeC="4" SizeZ="1" SizeT="1">'
        f'<Channel ID="C:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    path = tmp_path / "src" / "a.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.ones((8, 8), "u2"), metadata=None, description=ome)
    assert tifffile.imread(path).shape == (4, 8, 8)  # it does name one
    np.testing.assert_array_equal(read_tiff(path, stacked={4}).values, np.ones((8, 8)))


def test_links_in_archives_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "S2L2A"
    folder.mkdir(parents=True)
    KINDS["tar"][0](tmp_path / "tars")
    kept = next((tmp_path / "tars").rglob("*.tar"))
    (tmp_path / "secret.zarr.zip").write_bytes(SECRET)
    with tarfile.open(kept, "a") as tar:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE)):
            link = tarfile.TarInfo(f"link_{number}.zarr.zip")
            link.type, link.linkname = kind, str(tmp_path / "secret.zarr.zip")
            tar.addfile(link)
        tar.addfile(tarfile.TarInfo("/../up.zarr.zip"))
    kept.rename(folder / "a.tar")
    pack(open_source(tmp_path / "src"), tmp_path / "out")
    shards = ShardSet(tmp_path / "out")
    assert len(shards) == 2
    assert any("up" in each.what for each in shards.manifest.skipped)
    assert not any("link_" in str(each) for each in shards.manifest.skipped)


def test_a_link_in_a_zip_file_is_its_own_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "S2L2A"
    folder.mkdir(parents=True)
    bands = np.ones((1, 1, 12, 8, 8), "i2")
    times = np.array([["2020-01-01"]], "M8[ns]")
    write_group(folder / "a.zarr.zip", "s2l2a", bands, times, ["p"])
    (tmp_path / "secret").write_bytes(SECRET)
    linked = zipfile.ZipInfo("bands/0.0.0.0.0")
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(folder / "b.zarr.zip", "w") as file:
        with zipfile.ZipFile(folder / "a.zarr.zip") as whole:
            for each in whole.infolist():
                if not each.filename.startswith("bands/0"):
                    file.writestr(each.filename, whole.read(each))
        file.writestr(linked, str(tmp_path / "secret"))
    (folder / "a.zarr.zip").unlink()
    with pytest.raises(DataError, match=r"chunk bands/0\.0\.0\.0\.0 is damaged"):
        open_source(tmp_path / "src", modalities=["s2l2a"], seasons=1)


def test_links_in_a_source_are_the_users_own(tmp_path: Path) -> None:
    KINDS["geotiff"][0](tmp_path / "elsewhere")
    (tmp_path / "src").mkdir()
    for folder in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "src" / folder.name).symlink_to(folder)
    pack(open_source(tmp_path / "src"), tmp_path / "out")
    assert len(ShardSet(tmp_path / "out")) == 2


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
@pytest.mark.parametrize("layout", ["ssl4eo-v1.0", "geotiff", "zarr", "tar", "lmdb", "netcdf"])
def test_what_is_no_file_hangs_no_command(
    layout: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of the files in turn, up to five."""
    KINDS[layout][0](tmp_path / "src")
    mapping = ["--mapping", "worldcereal"] if layout == "netcdf" else []
    files = sorted(each for each in (tmp_path / "src").rglob("*") if each.is_file())
    for number, file in enumerate(files[:: max(1, len(files) // 5)]):
        data = file.read_bytes()
        file.unlink()
        replace_by(kind, file)
        out = tmp_path / f"out{number}"
        status = main([str(tmp_path / "src"), str(out), "--workers", "1", *mapping])
        found = capsys.readouterr()
        if status == 0:
            said = [f"{each.what} {each.why}" for each in remarks(out)]
            assert any(file.stem.split(".")[0] in each for each in said), said
        else:
            assert status == 2
            assert found.err.count("\n") == 1
        file.rmdir() if kind == "folder" else file.unlink()
        file.write_bytes(data)


def remarks(out: Path) -> list[Any]:
    manifest = ShardSet(out).manifest
    return [*manifest.skipped, *manifest.noted]


def replace_by(kind: str, path: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # addresses are short
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path.name[:90])
        os.chdir(here)
        Path(path.parent / path.name[:90]).rename(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.timeout(20)
def test_single_doors_name_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    os.mkfifo(tmp_path / "pipe.tif")
    message = "mapping .*pipe.yaml cannot be read: it is a named pipe; expected a regular file"
    with pytest.raises(DataError, match=message):
        open_source(tmp_path, mapping=str(tmp_path / "pipe.yaml"))
    assert tiff_position(tmp_path / "pipe.tif") is None
