"""Is there what a campaign relies on beside this machine: Slurm, wandb, the data?"""

import netrc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adarem.data import check_prepared, fingerprint
from adarem.data.text.corpus import read_corpus
from adarem.doctor.check import Check, ask
from adarem.launch.slurm import commands as slurm_commands
from adarem.run.config import RunConfig, TextConfig
from adarem.run.errors import UserError


def slurm(config: RunConfig | None) -> Iterator[Check]:
    needed = config is not None and config.cluster.name == "slurm"
    lacking = [c for c in ("sbatch", "srun", "squeue", "scontrol") if shutil.which(c) is None]
    if lacking:
        fix = "log in to the cluster; or cluster=local" if needed else ""
        yield Check("slurm", False if needed else None, f"no {', '.join(lacking)} on PATH", fix)
        return
    asked = ask(["sinfo", "--noheader", "--format=%R"])
    if isinstance(asked, Check):
        yield asked if needed else Check("slurm", None, asked.found)
        return
    partitions = sorted(set(asked.split()))
    if config is not None and needed:
        for key in ("partition", "aux_partition"):
            partition = getattr(config.cluster, key)
            if partition and not set(partition.split(",")) <= set(partitions):
                found = f"no partition {partition}; there are {', '.join(partitions)}"
                yield Check("slurm", False, found, f"cluster.{key}={partitions[0] if partitions else '...'}")
                return
    yield Check("slurm", True, f"answers; partitions {', '.join(partitions)}")
    if config is not None and needed:
        # Slurm itself says whether it would take such a job: account, limits, GPUs, everything that the site checks.
        job = f"{config.cluster.nodes} nodes x {config.cluster.ranks_per_node} ranks"
        with tempfile.TemporaryDirectory() as place:
            array = slurm_commands.array_command(Path(place), "test", 1, config.cluster, None)
            yield _taken("slurm job", job, array, "cluster.nodes, cluster.time, cluster.account, ...")
            report = slurm_commands.report_command(Path(place), [], config.cluster, after=[])
            what = "the report, and the job that writes the data,"
            yield _taken("slurm report", what, report, "cluster.aux_partition, cluster.aux_extra, cluster.account")


def _taken(name: str, job: str, command: list[str], fix: str) -> Check:
    command = ["--test-only" if word == "--parsable" else word for word in command]
    asked = ask(command)
    if isinstance(asked, Check):
        return Check(name, False, f"{job} would be refused: {asked.found}", fix)
    return Check(name, True, f"{job} would be taken")


def wandb(config: RunConfig | None) -> Check:
    mode = config.wandb.mode if config else "auto"
    if mode == "disabled":
        return Check("wandb", True, "switched off by the config")
    key = bool(os.environ.get("WANDB_API_KEY"))
    if not key:
        try:
            key = any("wandb" in host for host in netrc.netrc().hosts)
        except (OSError, netrc.NetrcParseError):
            key = False
    if key:
        return Check(
            "wandb", True, "there is a key" + (", runs stay offline by the config" if mode == "offline" else "")
        )
    fix = "wandb login, where runs shall be uploaded; offline ones are read with wandb leet"
    return Check("wandb", False if mode == "online" else None, "no key: runs are recorded offline", fix)


def dataset(config: RunConfig) -> Check:
    data = config.data
    if isinstance(data, TextConfig):
        return _text(data)
    try:
        check_prepared(data)
        train, val = (fingerprint.read_fingerprint(data, split)["num_images"] for split in fingerprint.SPLITS)
        return Check("data", True, f"{data.label}: {train:,} + {val:,} images, prepared")
    except UserError as e:
        missing = str(e)
    if data.embedded:
        return Check("data", True, f"{data.label}, made by `adarem launch`")
    for split in fingerprint.SPLITS:
        folder = Path(data.root) / split
        classes = sum(p.is_dir() for p in folder.iterdir()) if folder.is_dir() else 0
        if classes != data.num_classes:
            found_here = f"{classes} class folders" if folder.is_dir() else "no such folder"
            fix = f"data.root=... with train/<class>/* and val/<class>/* of {data.num_classes} classes"
            return Check("data", False, f"{folder}: {found_here}", fix)
    if not any((Path(data.beton_dir) / f"{s}.beton").exists() for s in fingerprint.SPLITS):
        return Check("data", True, f"{data.root} is there; `adarem launch` writes the .beton files first")
    return Check("data", False, missing, "adarem prepare, with the same settings")


def _text(data: TextConfig) -> Check:
    try:
        found = read_corpus(data).fingerprint
    except UserError as e:
        if data.embedded:
            return Check("data", True, f"{data.label}, made by `adarem launch`")
        return Check("data", False, str(e), f"data.root=... with the files of {data.label}")
    return Check("data", True, f"{data.label}: {found['train']['num_tokens']:,} tokens for training")
