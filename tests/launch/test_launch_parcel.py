"""An image as one file: what comes in is what was listed, bit for bit, or nothing comes in."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from jobs.contract import ImagePin
from launcher.errors import ExitCode, LaunchError
from launcher.image import parcel

PIN = ImagePin("apptainer", "sha256:" + "1" * 64, "git-tree:" + "2" * 40, "3.11.2", key="3" * 64)
ABOUT = {"made": {"python": "3.11.2"}}


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 9000)
    (tmp_path / "small").write_text("x")
    return {"environment.sif": tmp_path / "large", "launcher.zip": tmp_path / "small"}


@pytest.fixture
def file(tmp_path: Path, parts: dict[str, Path]) -> Path:
    written = tmp_path / "x.image"
    assert parcel.write(written, PIN, ABOUT, parts) == written.stat().st_size
    return written


def taken(file: Path, store: Path) -> dict[str, bytes]:
    with parcel.opened(file, store) as found:
        assert (found.pin, found.about) == (PIN, ABOUT)
        return {name: path.read_bytes() for name, path in found.files.items()}


def refused(file: Path, store: Path) -> str:
    with pytest.raises(LaunchError) as caught, parcel.opened(file, store):
        pytest.fail("it was taken")
    assert caught.value.code == ExitCode.FILES
    assert not [path for path in store.rglob("*") if path.is_file()]
    return str(caught.value)


def test_what_went_in_comes_out_and_nothing_is_left(tmp_path: Path, file: Path, parts: dict[str, Path]) -> None:
    assert taken(file, tmp_path / "store") == {name: path.read_bytes() for name, path in parts.items()}
    assert list((tmp_path / "store").iterdir()) == []
    assert not list(tmp_path.glob(".*.tmp"))


def test_every_flipped_byte_is_seen(tmp_path: Path, file: Path) -> None:
    """In the manifest, in its name, in a part's header, in a part."""
    data = file.read_bytes()
    size = int(data[124:135], 8)
    body = 1024 + (size + 511) // 512 * 512
    for place in (20, 130, 520, 512 + size - 3, body - 512 + 3, body - 512 + 130, body + 100, body + 256 * 9000 - 1):
        flipped = bytearray(data)
        flipped[place] ^= 1
        file.write_bytes(flipped)
        text = refused(file, tmp_path / "store")
        assert "sha256sum" in text or "export" in text, place


@pytest.mark.parametrize("length", [0, 100, 512, 700, 5000, 2_000_000])
def test_half_a_file(tmp_path: Path, file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    refused(file, tmp_path / "store")


def forged(
    file: Path, listed: dict[str, bytes], members: list[tuple[tarfile.TarInfo, bytes]], **changes: object
) -> Path:
    """A parcel whose manifest is right by its own hash."""
    files = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in listed.items()}
    text = json.dumps({"format": 1, "pin": {}, "about": {}, "files": files, **changes}).encode()
    head = tarfile.TarInfo(f"samebits-{hashlib.sha256(text).hexdigest()}.json")
    head.size = len(text)
    file.unlink(missing_ok=True)
    with tarfile.open(file, "w") as archive:
        archive.addfile(head, io.BytesIO(text))
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return file


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = len(data), kind, link
    return made, data


@pytest.mark.parametrize(
    "trick",
    [
        member("../../outside", b"x"),
        member("/tmp/outside", b"x"),
        member("part", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("part", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        member("part", kind=tarfile.DIRTYPE),
        member("part", kind=tarfile.CHRTYPE),
        member("more", b"x"),
    ],
)
def test_nothing_but_what_is_listed(tmp_path: Path, file: Path, trick: tuple[tarfile.TarInfo, bytes]) -> None:
    refused(forged(file, {"part": b"x"}, [trick]), tmp_path / "store")
    assert not (tmp_path / "outside").exists()


def test_a_listed_name_is_no_path(tmp_path: Path, file: Path) -> None:
    name = "../../outside"
    pin = {"engine": "docker", "environment": "", "code": "", "python": ""}
    forged(file, {name: b"x"}, [member(name, b"x")], pin=pin)
    with parcel.opened(file, tmp_path / "store") as found:
        assert found.files[name].resolve().is_relative_to(tmp_path / "store")
        assert not (tmp_path / "outside").exists()


def test_one_part_twice_or_not_at_all(tmp_path: Path, file: Path) -> None:
    assert "missing" in refused(forged(file, {"a": b"x", "b": b"y"}, [member("a", b"x")]), tmp_path / "store")
    refused(forged(file, {"a": b"x"}, [member("a", b"x"), member("a", b"x")]), tmp_path / "store")


def test_another_format_and_another_shape(tmp_path: Path, file: Path) -> None:
    assert "format 2" in refused(forged(file, {}, [], format=2), tmp_path / "store")
    for changes in ({"files": []}, {"files": {"a": 1}}, {"pin": {"engine": "x", "more": 1}}):
        refused(forged(file, {}, [], **changes), tmp_path / "store")
    with tarfile.open(file, "w") as archive:
        archive.addfile(member("any")[0])
    assert "launch image export" in refused(file, tmp_path / "store")
    file.write_text("not a tar at all")
    refused(file, tmp_path / "store")


def test_no_space_is_said_before_anything_is_written(tmp_path: Path, file: Path) -> None:
    manifest = {"a": {"size": 1 << 60, "sha256": ""}}
    text = refused(forged(file, {}, [], files=manifest), tmp_path / "store")
    assert "GB left" in text


def test_nobodys_file_is_replaced(tmp_path: Path, file: Path, parts: dict[str, Path]) -> None:
    before = file.read_bytes()
    with pytest.raises(LaunchError, match="there already"):
        parcel.write(file, PIN, ABOUT, parts)
    assert file.read_bytes() == before
    with pytest.raises(LaunchError, match="no such folder"):
        parcel.write(tmp_path / "nowhere" / "x", PIN, ABOUT, parts)
