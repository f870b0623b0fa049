"""Tar and zip archives of all makes are listed and read in place; what leads out of them or ends early is refused."""

import io
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from adarem.data.images.archives import add_tar, add_zip, open_zip
from adarem.data.images.source import Listing
from adarem.run.errors import UserError
from tests.support.imagenet_archives import tar_of

FILES = {"a/1.JPEG": b"one" * 700, "a/2.JPEG": b"", "b/" + "x" * 180 + ".JPEG": b"long" * 9, "b/ä ö.JPEG": b"umlaut"}


def read_tar(path: Path) -> dict[str, bytes]:
    listing = Listing(path)
    add_tar(listing, path, "train")
    return {
        f"{c}/{n}": pickle.loads(pickle.dumps(f.image)).read()
        for c, of in listing.classes.items()
        for n, f in of.items()
    }


def read_zip(path: Path, folder: str = "x/") -> dict[str, bytes]:
    listing = Listing(path)
    with open_zip(path) as archive:
        add_zip(listing, archive, folder)
    return {
        f"{c}/{n}": pickle.loads(pickle.dumps(f.image)).read()
        for c, of in listing.classes.items()
        for n, f in of.items()
    }


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "train/", "./ILSVRC2012_img_train/"])
def test_every_form_of_tar(tmp_path: Path, form: int, prefix: str) -> None:
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(tar_of([(prefix + name, payload) for name, payload in FILES.items()], format=form))
    assert read_tar(path) == FILES


def test_a_tar_of_gnus_program(tmp_path: Path) -> None:
    for name, payload in FILES.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(payload)
    for form in ("gnu", "pax", "ustar", "v7"):
        files = FILES if form in ("gnu", "pax") else {k: v for k, v in FILES.items() if len(k) < 90}
        subprocess.run(
            ["tar", f"--format={form}", "-C", tmp_path / "in", "-cf", tmp_path / "t.tar", *(f"./{n}" for n in files)],
            check=True,
        )
        assert read_tar(tmp_path / "t.tar") == files


def test_tars_in_a_tar(tmp_path: Path) -> None:
    inner = {c: tar_of([(n.split("/")[1], p) for n, p in FILES.items() if n[0] == c]) for c in "ab"}
    inner["b"] = tar_of([(f"./b/{n.split('/')[1]}", p) for n, p in FILES.items() if n[0] == "b"])
    path = tmp_path / "t.tar"
    path.write_bytes(tar_of([("a.tar", inner["a"]), ("./b.tar", inner["b"])]))
    assert read_tar(path) == FILES


def member(name: str, **changes: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        for key, value in changes.items():
            setattr(info, key, value)
        tar.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (member("../a/1.JPEG"), "leads out of a folder"),
        (member("a/../../1.JPEG"), "leads out of a folder"),
        (member("/etc/1.JPEG"), "leads out of a folder"),
        (member("a/1.JPEG", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a/1.JPEG is a link"),
        (member("a/1.JPEG", type=tarfile.LNKTYPE, linkname="../x"), "a/1.JPEG is a link"),
        (member("a/1.JPEG", type=tarfile.CHRTYPE), "a/1.JPEG is no plain file"),
        (member("a/b/1.JPEG"), "a/b: a folder inside a class folder"),
        (tar_of([("a.tar", member("../1.JPEG"))]), "t.tar/a.tar: its member '../1.JPEG' leads out"),
        (tar_of([("a.tar", tar_of(FILES.items())[:2000])]), "t.tar/a.tar: ends too early"),
        (tar_of(FILES.items())[:3000], "t.tar: ends too early"),
        (tar_of(FILES.items())[: 512 + 2560], "t.tar: ends too early at byte 3,072"),  # between two members
        (b"\x1f\x8b" + bytes(600), "compressed, .*: `mkdir -p .*/train && tar -xf .*t.tar -C .*/train`"),
        # What an interrupted download in pieces leaves: zeros in the middle
        (tar_of([("a/1.JPEG", b"1")])[:1024] + bytes(1 << 21) + b"rest", "last 2,097,156 bytes are no part of it"),
        (tar_of([("a/1.JPEG", b"1")]) + tar_of([("a/2.JPEG", b"2")]), "last .* bytes are no part of it"),
        (tar_of([("a/1.JPEG", b"1")])[:1024] + b"\7" * 5120, "t.tar: is damaged at byte 1,024"),
    ],
)
def test_tars_that_are_refused(tmp_path: Path, payload: bytes, message: str) -> None:
    (tmp_path / "t.tar").write_bytes(payload)
    with pytest.raises(UserError, match=message) as error:
        read_tar(tmp_path / "t.tar")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.mkdir("x/a")
        archive.writestr("y/other.JPEG", b"not asked for")
        for name, payload in FILES.items():
            with archive.open(f"x/{name}", "w", force_zip64=name.startswith("b")) as f:
                f.write(payload)
    assert read_zip(path) == FILES


def test_a_zip_of_more_entries_than_the_old_format_counts(tmp_path: Path) -> None:
    """65,536 members need zip64's end record."""
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(65_540):
            archive.writestr(zipfile.ZipInfo(f"x/a/{n}.JPEG"), b"")
    assert len(read_zip(path)) == 65_540


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x/a/1.JPEG")
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("name", "compression", "message"),
    [
        ("x/../1.JPEG", zipfile.ZIP_STORED, "leads out of a folder"),
        ("x//etc/../../1.JPEG", zipfile.ZIP_STORED, "leads out of a folder"),
        (link(), zipfile.ZIP_STORED, "is a link"),
        ("x/a/1.JPEG", zipfile.ZIP_LZMA, "encrypted or compressed in a rare way"),
    ],
)
def test_zips_that_are_refused(tmp_path: Path, name: str | zipfile.ZipInfo, compression: int, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", compression) as archive:
        archive.writestr(name, b"data")
    with pytest.raises(UserError, match=message):
        read_zip(tmp_path / "t.zip")


def test_a_member_that_unpacks_to_more_than_it_says_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/a/1.JPEG", bytes(10 << 20))
    listing = Listing(path)
    with open_zip(path) as archive:
        archive.infolist()[0].file_size = 1000
        add_zip(listing, archive, "x/")
    with pytest.raises(OSError, match="checksum in .* differs"):
        listing.classes["a"]["1.JPEG"].image.read()


def test_an_archive_cut_after_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(tar_of(FILES.items()))
    listing = Listing(path)
    add_tar(listing, path, "train")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(OSError, match="t.tar ends at byte 1000"):
        listing.classes["a"]["1.JPEG"].image.read()
