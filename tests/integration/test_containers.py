"""Dockerfile and apptainer.def: they say the same, and their install lines work in a bare Debian root file system.

No builder is needed: debootstrap makes the root, chroot takes a builder's place, and a read-only mount with a user that
the image does not know takes the place of ``docker run --read-only --user``.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT

SUITES = {"12": "bookworm", "13": "trixie"}  # Debian's names, which debootstrap knows, for the base image's versions


def docker(keyword: str) -> list[str]:
    """What follows a keyword in the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line.removeprefix(keyword).strip() for line in text.splitlines() if line.startswith(f"{keyword} ")]


def apptainer(section: str) -> list[str]:
    """The lines of a section of apptainer.def."""
    found = re.search(rf"^%{section}\n(.*?)(?=^%|\Z)", (ROOT / "apptainer.def").read_text(), re.MULTILINE | re.DOTALL)
    assert found, section
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def copied() -> dict[str, str]:
    """Each path of the checkout that the Dockerfile copies, and where to."""
    pairs = {}
    for line in docker("COPY"):
        *sources, target = line.split()
        for source in sources:
            pairs[source] = target + Path(source).name if target.endswith("/") else target
    return pairs


def environment() -> dict[str, str]:
    (line,) = docker("ENV")
    return dict(word.split("=", 1) for word in line.split())


def copy_into(root: Path) -> None:
    for source, target in copied().items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / source, place)


def test_both_files_make_the_same_image() -> None:
    text = (ROOT / "apptainer.def").read_text()
    assert re.findall(r"^From: (.*)$", text, re.MULTILINE) == docker("FROM")
    assert dict(line.split() for line in apptainer("files")) == copied()
    assert apptainer("post") == docker("RUN")
    exported = dict(line.removeprefix("export ").split("=", 1) for line in apptainer("environment"))
    # Apptainer runs as the caller, with the caller's home.
    assert exported == {k: v for k, v in environment().items() if k not in ("HOME", "USER")}


def test_the_image_is_pinned_and_its_user_is_not_root() -> None:
    (base,) = docker("FROM")
    assert re.fullmatch(r"debian:\d+\.\d+-slim", base)
    assert docker("USER") == ["1000:1000"]
    assert environment()["HOME"] == "/tmp"  # the one place that a read-only container can write in
    script = (ROOT / "scripts" / "setup.sh").read_text()
    assert "-c constraints.txt" in script


def test_the_copied_files_are_all_that_the_wheel_is_made_of(tmp_path: Path) -> None:
    """Configs, Slurm scripts and the paper's numbers among them."""
    copy_into(tmp_path)
    source = tmp_path / "opt" / "source"
    command = [
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("adarem-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("configs/run.yaml", "slurm/run.sbatch", "results/paper/claims.yaml"):
        assert any(n.endswith(name) for n in names), name
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_the_builder_is_sent_what_it_copies_and_little_else() -> None:
    admitted = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {source.split("/")[0] for source in copied()} == set(admitted)


@pytest.mark.installs
@pytest.mark.timeout(3600)
def test_the_install_lines_work_in_a_bare_debian(tmp_path: Path) -> None:
    """The image's install, then doctor and a run on the digits: root read-only, a user that it does not know."""
    assert os.getuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap: apt-get install debootstrap"
    root = tmp_path / "root"
    (base,) = docker("FROM")
    suite = SUITES[base.removeprefix("debian:").split(".")[0]]
    try:
        run(["unshare", "--mount", "debootstrap", "--variant=minbase", suite, str(root)])  # its mounts end with it
        copy_into(root)
        for name in ("etc/resolv.conf", "etc/hosts"):
            shutil.copy(f"/{name}", root / name)
        shutil.copytree(
            "/usr/local/share/ca-certificates", root / "usr/local/share/ca-certificates", dirs_exist_ok=True
        )  # of this machine's registries
        for line in docker("RUN"):
            run(in_root(root, line, as_builder=True))
        words = (
            "grid=table2 data=digits scale=smoke optimizer=adarem cluster.ranks_per_node=1 "
            "wandb.mode=disabled data.root=/work/data"
        )
        said = run(in_root(root, f"id; adarem doctor; adarem launch {words}; ! touch /opt/x"))
        print(said)
        assert "uid=12345 gid=12345" in said
        assert "nothing is missing" in said
        assert re.search(r"resnet18-adarem-s0: top-1 [5-9]\d\.\d+ %", said)
        assert "touch: cannot touch '/opt/x': Read-only file system" in said
    finally:
        shutil.rmtree(root, ignore_errors=True)  # 8 GB


def in_root(root: Path, line: str, *, as_builder: bool = False) -> list[str]:
    """A shell's line in the root: as a builder runs it, or as in a container: read-only, as user 12345."""
    passed = {k: v for k, v in os.environ.items() if re.fullmatch(r"PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|\w+_proxy", k)}
    mounts = ["mount --bind . .", 'cd "$PWD"', "mount -t proc proc proc", "mount --rbind /dev dev"]
    if as_builder:
        user, env = [], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    else:
        user, env = ["--userspec=12345:12345"], environment()
        mounts += [
            "mkdir -p work",
            "mount -o remount,bind,ro .",
            "mount -t tmpfs tmpfs tmp",
            "mount -t tmpfs tmpfs work",
        ]
        mounts += ["chmod 1777 tmp work"]
        line = f"cd /work; {line}"
    variables = [f"{k}={v}" for k, v in (env | passed).items()]
    enter = shlex.join(["exec", "chroot", *user, ".", "env", "-i", *variables, "sh", "-c", line])
    prepare = shlex.join(["cd", str(root)])
    return ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", "\n".join([prepare, *mounts, enter])]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr
