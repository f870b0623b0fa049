"""Mistakes a user can make, each with its line: exit code not 0, no traceback, nothing left behind.

Further kinds of damage to images and .beton files are in tests/data.
"""

import hashlib
import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from adarem.cli import main
from adarem.run.directory import RunDir
from tests.support.small_disk import Disk
from tests.support.warm import TOKEN, train_on_ranks

# What a failed start may leave: its own record, and the list of files to fix.
RECORDS = {"lock", "attempts.jsonl", "log.txt", ".prepare.lock", "train.bad.txt", "val.bad.txt"}


@dataclass
class Place:
    """A folder with a small source of pictures, prepared digits and a planned run."""

    path: Path
    photos: Path
    digits: Path

    def run(self, *overrides: str) -> RunDir:
        from adarem.plan.plan import make_plan

        root = [] if any(o.startswith("data.root=") for o in overrides) else [f'data.root="{self.digits}"']
        plan = make_plan([
            "data=digits", *root, f'runs_dir="{self.path / "runs"}"', "wandb.mode=disabled", "scale=smoke",
            "model=shufflenet_v2_0.5", "optimizer=sgdm", "cluster.ranks_per_node=1",
            *([] if any("batch" in o for o in overrides) else ["scale.global_batch_size=288"]), *overrides,
        ])  # fmt: skip
        plan.write()
        return plan.runs[0].run

    def prepare(self) -> list[str]:
        return ["prepare", "data=imagenet", f'data.root="{self.photos}"', "data.num_classes=2", "--workers=1"]

    def beton(self, change: Callable[[bytes], bytes], *overrides: str) -> list[str]:
        """A run over digits whose training file was changed."""
        copy = self.path / "copy"
        shutil.copytree(self.digits / "ffcv", copy / "ffcv")
        file = copy / "ffcv" / "train.beton"
        file.write_bytes(change(file.read_bytes()))
        return ["train", str(self.run(f'data.root="{copy}"', *overrides).path)]

    def checkpoint(self, state: object) -> list[str]:
        """A run with a checkpoint that holds ``state``."""
        run, buffer = self.run(), io.BytesIO()
        torch.save(state, buffer)
        run.checkpoints.mkdir()
        name = f"step-000000004-{hashlib.sha256(buffer.getvalue()).hexdigest()[:16]}.pt"
        (run.checkpoints / name).write_bytes(buffer.getvalue())
        return ["train", str(run.path)]

    def edited(self, name: str, text: str) -> list[str]:
        run = self.run()
        (run.path / name).write_text(text)
        return ["train", str(run.path)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(3):
                Image.fromarray(noise).save(root / split / name / f"{i}.JPEG")
    return root


@pytest.fixture
def place(tmp_path: Path, pictures: Path, digits_root: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(pictures, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path, tmp_path / "photos", digits_root)


def files(folder: Path) -> dict[Path, bytes | None]:
    return {
        p: p.read_bytes() if p.is_file() else None
        for p in folder.rglob("*")
        if p.name not in RECORDS and p.name != "ffcv"
    }


def check(place: Place, argv: list[str], line: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = files(place.path)
    capfd.readouterr()
    code = main(argv)
    out, err = capfd.readouterr()
    assert code not in (0, None)
    assert "Traceback" not in out + err
    assert len([s for s in err.splitlines() if not s.startswith(("warning: ", "writing ", "checking "))]) == 1, err
    assert line.replace("PLACE", str(place.path)) in err, err
    assert files(place.path) == before


PLAN = [
    (["grid=tabel2"], "grid=tabel2: no such file configs/grid/tabel2.yaml; did you mean 'table2'?"),
    (["grid=table1,table2"], "grid=table1,table2: one value at a time"),
    (["modle=resnet18"], "modle: no such key; did you mean 'model'?"),
    (["model=resnt18"], "model=resnt18: no such file configs/model/resnt18.yaml; did you mean 'resnet18'?"),
    (["optimizer=adarm"], "optimizer=adarm: no such file configs/optimizer/adarm.yaml; did you mean 'adarem'?"),
    (["optimizer=adam", "optimizer.momentum=0.9"], "optimizer.momentum: no such key (adam); valid: beta1"),
    (["optimizer.lr=nan"], "optimizer.lr=nan: needs a finite number"),
    (["optimizer.lr=-1"], "optimizer.lr=-1.0: needs a number above 0"),
    (["optimizer.lr=fast"], "optimizer.lr='fast': needs float, not str"),
    (["optimizer.lr=0.1 0.2"], "optimizer.lr='0.1 0.2': needs float, not str"),
    (["optimizer.lr=["], "'optimizer.lr=[': not in Hydra's override grammar"),
    (["optimizer.lr=${nowhere}"], "optimizer.lr: Interpolation key 'nowhere' not found"),
    (["optimizer.lr"], "'optimizer.lr': not an override; write key=value"),
    (["=0.1"], "'=0.1': not an override; write key=value"),
    ([""], "'': not an override; write key=value"),
    (["~optimizer"], "~optimizer: cannot be removed; give it another value, optimizer=..."),
    (["~train.compile"], "train.compile: missing"),
    (["+train.extra=1"], "train.extra: no such key"),
    (["seeds=[0]", "seeds=[1]"], "seeds: given twice (seeds=[0] and seeds=[1]); keep one"),
    (["seeds=[0,x]"], "seeds=[0, 'x']: needs a list of integers of 0 or more"),
    (["seeds=[1.5]"], "seeds=[1.5]: needs a list of integers of 0 or more"),
    (["seeds=[1,1]"], "seeds=[1, 1]: needs at least one seed, and each once"),
    (["seeds=0,1"], "seeds=0,1: needs a list, for instance 'seeds=[0,1,2]'"),
    (
        ["seeds=[9999999999999999]"],
        "seeds=[9999999999999999]: needs a list of integers of 0 or more, below 2**32, for instance 'seeds=[0,1,2]'",
    ),
    (["seeds=4294967296"], "seeds=[4294967296]: needs a list of integers of 0 or more, below 2**32"),
    (["optimizer.lr=0.1", "++optimizer.lr=0.2"], "optimizer.lr: given twice (optimizer.lr=0.1 and ++optimizer.lr=0.2)"),
    (["optimizer.lr=interval(0,1)"], "optimizer.lr=interval(0,1): an axis needs its values, optimizer.lr=VALUE,VALUE"),
    (["optimizer=glob(*)"], "optimizer=glob(*): an axis needs its values, optimizer=VALUE,VALUE"),
    (["~grid.axes"], "grid.axes: missing"),
    (["~grid.seeds"], "grid.seeds: missing"),
    (["~grid.title"], "grid.title: missing"),
    (["~grid.axes.optimizer"], "grid.axes.optimizer: missing; every grid has this axis, if only of one value"),
    (["grid.axes=3"], "grid.axes=3: needs a mapping"),
    (["grid.axes.optimizer=3"], "grid.axes.optimizer=3: needs a list of at least one value"),
    (["grid.axes.optimizer=adam"], "grid.axes.optimizer=adam: needs a list of at least one value"),
    (["grid.axes.model=[]"], "grid.axes.model=[]: needs a list of at least one value"),
    (["grid.axes.model=[null]"], "grid.axes.model=[None]: needs names and numbers, not None"),
    (
        ["grid.axes.model=[resnt18]"],
        "grid.axes.model: model=resnt18: no such file configs/model/resnt18.yaml; did you mean 'resnet18'?",
    ),
    (["+grid.axes.modle=[resnet18]"], "grid.axes.modle: no axis; did you mean 'model'?"),
    (["+grid.axes={1: [2]}"], "grid.axes={'model': "),
    (["+grid.axes={optimizer.lrr: [1]}"], "optimizer.lrr: no such key (sgdm); did you mean 'lr'?"),
    (["grid.seeds=1,2"], "grid.seeds=1,2: one value at a time"),
    (["grid.seeds=x"], "grid.seeds='x': needs a list of int"),
    (
        ["optimizer.schedule.name=constant"],
        "optimizer.schedule.name: only a file of configs/optimizer says so; for all",
    ),
    (
        ["optimizer.clip_grad_norm=1"],
        "optimizer.clip_grad_norm: only a file of configs/optimizer says so; for",
    ),
    (["optimizer.no_decay=bias"], "optimizer.no_decay='bias': needs a list of one of bias, norm, embedding"),
    (["grid.metrics=[topp1]"], "grid.metrics=['topp1']: topp1: did you mean 'top1'?"),
    (["grid.metrics=[]"], "grid.metrics=[]: needs at least one of top1, top5"),
    (["grid.selektion=x"], "grid.selektion: no such key; did you mean 'selection'?"),
    (["+grid.selektion=x"], "grid.selektion: no such key; did you mean 'selection'?"),
    (["+grid.overrides=3"], "grid.overrides=3: needs a mapping"),
    (["+grid.overrides={a: 3}"], "grid.overrides.a=3: needs a mapping of settings, for instance {optimizer.lr: ...}"),
    (["+grid.overrides={a: {optimizer.lr: [1]}}"], "optimizer.lr=[1]: needs float, not list"),
    (["+grid.search=4"], "grid.search=4: needs a mapping"),
    (["+grid.search={adam: {optimizer.lr: 3}}"], "grid.search.adam.optimizer.lr=3: needs a list of at least one value"),
    (
        ["+grid.search={adma: {optimizer.lr: [3]}}"],
        "grid.search: optimizer=adma: no such file configs/optimizer/adma.yaml; did you mean 'adam'?",
    ),
    (["+grid.settings=3"], "grid.settings=3: needs a list of str"),
    (["+grid.settings=[3]"], "grid.settings[0]=3: needs text"),
    (["+grid.settings=['train.compl=true']"], "train.compl: no such key; did you mean 'compile'?"),
    (["+grid.settings=['train.compile=a,b']"], "grid.settings: train.compile=a,b: needs one value"),
    (["grid.name=../x"], "grid.name=../x: names files; use letters, digits and _ . + = -, at most 64,"),
    (["grid.name="], "grid.name=: names files; use"),
    (["grid.figure=../x"], "grid.figure=../x: names files; use"),
    (["+grid.settings_from=../x"], "grid.settings_from=../x: names files; use"),
    (["+grid.winners=x"], "grid.winners: no such key; its name is 'settings_from'"),
    (["grid.winners=null"], "grid.winners: no such key; its name is 'settings_from'"),
    (["+grid.variants={a: {}}"], "grid.variants: no such key; its name is 'overrides'"),
    (["scale.name=../../x"], "scale.name=../../x: names files; use"),
    (["data.name=../../x"], "data.name=../../x: names files; use"),
    (["grid.title=${nowhere}"], "grid.title: Interpolation key 'nowhere' not found"),
    (["runs_dir=${nowhere}"], "runs_dir: Interpolation key 'nowhere' not found"),
    (["runs_dir=???"], "Missing mandatory value: runs_dir"),
    (
        ["cluster.setup='export WANDB_API_KEY=secret'"],
        "cluster.setup: holds what looks like a wandb key, which config.yaml would show; remove it, and export",
    ),
    (["scale.epochs=0"], "scale.epochs=0: needs 1 or more"),
    (["scale.epochs=2.5"], "scale.epochs=2.5: needs int, not float"),
    (
        ["cluster.ranks_per_node=7"],
        "cluster.nodes * cluster.ranks_per_node=7 ranks do not divide scale.global_batch_size=64;",
    ),
    (["cluster.stall_seconds=1"], "cluster.stall_seconds=1.0: needs 10 or more"),
    (["data.workers=0"], "data.workers=0: needs 1 or more"),
    (["data.root=null"], "data.root=null: needs a folder, for instance data.root=./folder"),
    (["results_dir=$(touch hacked)"], "'results_dir=$(touch hacked)': not in Hydra's override grammar"),
    (["results_dir=/a b'"], "\"results_dir=/a b'\": not in Hydra's override grammar"),
]


@pytest.mark.parametrize(("overrides", "line"), PLAN, ids=[" ".join(o) or "empty" for o, _ in PLAN])
def test_overrides(overrides: list[str], line: str, place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    given = [] if overrides[0].startswith("data.root") else [f'data.root="{place.digits}"']
    check(place, ["launch", "data=digits", *given, *overrides], f"adarem launch: {line}", capfd)
    assert not (place.path / "hacked").exists()


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def damage_pictures(place: Place) -> list[str]:
    (place.photos / "train" / "cat" / "0.JPEG").write_bytes(b"")
    complete = (place.photos / "train" / "dog" / "1.JPEG").read_bytes()
    (place.photos / "train" / "dog" / "1.JPEG").write_bytes(complete[: len(complete) // 2])
    return place.prepare()


def link_to_nowhere(place: Place) -> list[str]:
    for split in ("train", "val"):
        picture = place.photos / split / "dog" / "2.JPEG"
        picture.unlink()
        picture.symlink_to("nowhere")
    return place.prepare()


def after(act: Callable[[Place], object], argv: Callable[[Place], list[str]]) -> Callable[[Place], list[str]]:
    def arrange(place: Place) -> list[str]:
        act(place)
        return argv(place)

    return arrange


def archive_of_html(place: Place) -> None:
    remove(place.photos / "train")
    (place.photos / "ILSVRC2012_img_train.tar").write_text("<html>Please sign in</html>" * 100)


def other_version(data: bytes) -> bytes:
    return b"\x01" + data[1:]


def other_label(data: bytes) -> bytes:
    """The first sample's label, changed in the metadata: header 24 bytes, two fields of 1041, then the image's 13."""
    from adarem.data.ffcv import beton

    at = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize + beton.METADATA.fields["f1"][1]
    return data[:at] + bytes([(data[at] + 1) % 10]) + data[at + 1 :]


CASES: dict[str, tuple[Callable[[Place], list[str]], str]] = {
    # data sets
    "no data set": (
        after(lambda p: remove(p.photos), Place.prepare),
        "PLACE/photos/train: no such folder; data.root needs train/<class>/<image>.JPEG",
    ),
    "empty data set": (
        after(lambda p: [remove(c) for c in (p.photos / "train").iterdir()], Place.prepare),
        "PLACE/photos/train: holds no class folders",
    ),
    "one class short": (
        after(lambda p: [remove(p.photos / s / "dog") for s in ("train", "val")], Place.prepare),
        "PLACE/photos/train: holds 1 classes, data.num_classes is 2; correct data.root or data.num_classes",
    ),
    "unknown class in val": (
        after(lambda p: (p.photos / "val" / "dog").rename(p.photos / "val" / "emu"), Place.prepare),
        "2 classes are in one of train and val only, the first is dog",
    ),
    "class without images": (
        after(lambda p: [f.unlink() for f in (p.photos / "val" / "cat").iterdir()], Place.prepare),
        "PLACE/photos/val: no images in 1 classes: cat",
    ),
    "archive that is none": (
        after(archive_of_html, Place.prepare),
        "PLACE/photos/ILSVRC2012_img_train.tar: ends too early or is damaged",
    ),
    "zero-byte and truncated JPEG": (damage_pictures, "PLACE/photos/train: 2 of 6 images cannot be read: cat/0.JPEG ("),
    "links to nowhere, in both splits": (
        link_to_nowhere,
        "train: 1 of 6 images cannot be read: dog/2.JPEG (no such file); "
        "PLACE/photos/val: 1 of 6 images cannot be read: dog/2.JPEG (no such file); replace or remove them "
        "(all in PLACE/photos/ffcv/train.bad.txt and PLACE/photos/ffcv/val.bad.txt), or leave them out with --skip-bad",
    ),
    "not prepared": (
        lambda p: ["train", str(p.run(f'data.root="{p.path / "nowhere"}"').path)],
        "PLACE/nowhere/ffcv/train.beton",
    ),
    "truncated .beton": (lambda p: p.beton(lambda d: d[:-1]), "train.beton: "),
    "empty .beton": (lambda p: p.beton(lambda d: b""), "train.beton: an empty file"),
    ".beton of another version": (lambda p: p.beton(other_version), "train.beton: not a .beton of format version 2"),
    ".beton changed under its fingerprint": (
        lambda p: p.beton(other_label),
        "train.beton: not the file that train.beton.json describes; run `adarem prepare PLACE/",
    ),
    ".beton of another class count": (
        lambda p: p.beton(lambda d: d, "data.num_classes=5"),
        "train.beton: has labels up to 9, data.num_classes is 5; set it to 10",
    ),
    "batch larger than the data": (
        lambda p: ["train", str(p.run("scale.global_batch_size=5000").path)],
        "scale.global_batch_size=5000: larger than the 1437 training images",
    ),
    # paths and run directories
    "no such run": (lambda p: ["train", str(p.path / "nowhere")], "PLACE/nowhere: no config.yaml there, so no run"),
    "a file for a run": (lambda p: ["train", "/etc/passwd"], "/etc/passwd: no config.yaml there, so no run"),
    "a line feed in a path": (lambda p: ["train", "a\nb"], "PLACE/a\\nb: no config.yaml there, so no run"),
    "run directory of another version": (
        after(lambda p: None, lambda p: p.edited("config.yaml", p.run().config_file.read_text() + "later: 1\n")),
        "config.yaml: later: no such key",
    ),
    "config with code in it": (
        lambda p: p.edited("config.yaml", "!!python/object/apply:os.system ['touch hacked']\n"),
        "config.yaml: not valid YAML at line 1; remove the run and plan it again",
    ),
    "config that is no text": (lambda p: p.edited("config.yaml", "\0"), "config.yaml: not valid YAML"),
    "checkpoint of another version": (
        lambda p: p.checkpoint({"format": 0}),
        ".pt: checkpoint format 0, this version reads",
    ),
    "results file written by hand": (
        lambda p: p.edited("result.json", '{"status": "done", "top1": 99.0}'),
        "result.json: not as training wrote it (no checksum); restore it, or remove it: the same launch then",
    ),
    "results file edited by hand": (
        lambda p: p.edited("result.json", '{"status": "done", "top1": 99.0, "checksum": "9c2f4a8f9d8c8f7e"}'),
        "result.json: not as training wrote it (checksum differs); restore it, or remove it: the same launch then",
    ),
    "results file cut short": (
        lambda p: p.edited("result.json", '{"status": "do'),
        "result.json: not readable as JSON",
    ),
    "other settings under the same name": (
        lambda p: [
            p.edited("config.yaml", p.run().config_file.read_text().replace("momentum: 0.9", "momentum: 0.8")),
            ["plan", "data=digits", f'data.root="{p.digits}"', f'runs_dir="{p.path / "runs"}"', "wandb.mode=disabled",
             "scale=smoke", "scale.global_batch_size=288", "model=shufflenet_v2_0.5", "optimizer=sgdm",
             "cluster.ranks_per_node=1"],
        ][1],
        "planned before with other settings (optimizer.momentum: 0.8 against 0.9)",
    ),
    "no runs": (lambda p: ["status"], "runs: no runs there; `adarem launch grid=table2` makes some"),
    "no runs to report": (lambda p: ["report", "data=digits"], "no runs on digits there"),
    "no such setting": (lambda p: ["report", "gird=table2"], "'gird=table2': not a setting of this command"),
    # the machine
    "fewer GPUs than ranks": (
        lambda p: ["train", str(p.run("cluster.device=cuda").path)],
        "cluster.ranks_per_node: rank 0 needs GPU 0 on",
    ),
    "fewer CPUs than workers": (
        lambda p: ["train", str(p.run("data.workers=4096").path)],
        "data.workers=4096: rank 0 on",
    ),
    "several nodes without Slurm": (
        lambda p: ["launch", "data=digits", "cluster.nodes=2"],
        "cluster.nodes=2: this machine is one node; give cluster.nodes=1 or cluster=slurm",
    ),
    "no workers": (lambda p: [*p.prepare()[:-1], "--workers=0"], "workers=0: needs 1 or more"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_mistakes(name: str, place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "fewer GPUs than ranks":
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    arrange, line = CASES[name]
    check(place, arrange(place), line, capfd)
    assert not (place.path / "hacked").exists()


ENVIRONMENT = {
    "rank that is no number": ({"RANK": "x", "WORLD_SIZE": "2"}, "RANK=x, WORLD_SIZE=2, LOCAL_RANK=: no ranks of one"),
    "rank beyond the world": ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2, LOCAL_RANK=: no ranks of one"),
    "no meeting point": ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR: not set, so 2 ranks cannot meet"),
    "no secret": ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}, "ADAREM_TOKEN: not set, or shorter"),
    "a word for a secret": (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ADAREM_TOKEN": "hunter2"},
        "ADAREM_TOKEN: not set, or shorter than 16 characters, so 2 ranks cannot tell each other from strangers",
    ),
    "port that is none": (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ADAREM_TOKEN": TOKEN, "MASTER_PORT": "http"},
        "MASTER_ADDR=127.0.0.1 MASTER_PORT=http: no port; give one from 1 to 65535, or unset MASTER_PORT",
    ),
    "port in use": (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ADAREM_TOKEN": TOKEN, "MASTER_PORT": "TAKEN"},
        "cannot meet the others there (the port is in use); choose another port, or start again",
    ),
    "no configs": (
        {"ADAREM_CONFIGS": "/nowhere"},
        "ADAREM_CONFIGS=/nowhere: no such folder; name a folder of configs, or unset it",
    ),
}


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_environment(
    name: str, place: Place, taken_port: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, line = ENVIRONMENT[name]
    argv = ["plan", "data=digits"] if "ADAREM_CONFIGS" in variables else ["train", str(place.run().path)]
    for key, value in variables.items():
        monkeypatch.setenv(key, value.replace("TAKEN", str(taken_port)))
    check(place, argv, line, capfd)


def test_more_ranks_than_the_batch_divides_by(place: Place) -> None:
    """Two real ranks end with code 2, and one line is printed."""
    run = place.run("scale.global_batch_size=287")
    done = train_on_ranks(2, run.path)
    line = "adarem train: scale.global_batch_size=287: 2 ranks were started, which do not divide it; start as many as"
    assert done.returncode == 2 and done.stderr.count("adarem train: ") == 1 and line in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["plan", "launch", "prepare", "report"])
def test_no_write_permission(verb: str, place: Place, disk: Disk, capfd: pytest.CaptureFixture[str]) -> None:
    """A read-only disk: root may write past any permission."""
    run = place.run("scale.epochs=1")
    run.write_result({"status": "diverged", "epoch": 1, "step": 1, "reason": "loss"})
    disk.remount("ro")
    common = ["data=digits", f'data.root="{place.digits}"']
    argv = {
        "plan": ["plan", *common, f'runs_dir="{disk.path / "runs"}"'],
        "launch": ["launch", *common, f'runs_dir="{disk.path / "runs"}"'],
        "prepare": ["prepare", *common, f'data.beton_dir="{disk.path / "ffcv"}"'],
        "report": [
            "report",
            "data=digits",
            "scale=smoke",
            f"runs_dir={place.path / 'runs'}",
            f"results_dir={disk.path / 'results'}",
        ],
    }[verb]
    check(place, argv, "Read-only file system", capfd)
    assert str(disk.path) in argv[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="a /dev/shm of its own needs root")
def test_small_shared_memory(place: Place) -> None:
    run = place.run("data.backend=folder")
    command = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" -m adarem train "$1"'
    private = ["unshare", "--mount", "--propagation=private", "sh", "-c", command, sys.executable, str(run.path)]
    done = subprocess.run(private, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.startswith("adarem train: /dev/shm on ") and "0.1 MB free, data.backend=folder needs" in done.stderr
    )
    assert done.stderr.count("\n") == 1
