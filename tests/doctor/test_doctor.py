"""The doctor on this machine and on made-up ones. Probes that take seconds run for real once."""

import dataclasses
import json
import os

import pytest

from adarem import doctor
from adarem.doctor import check, machine, probes, software
from adarem.plan.plan import make_plan
from adarem.run import exitcodes

TORCH = {"version": "2.14.1", "torchvision": "0.29.2", "cuda": "13.0", "gpus": [], "gloo": True, "nccl": True}


@pytest.fixture
def config(tmp_path):
    return make_plan(["grid=table2", "data=digits", "optimizer=sgdm", f"data.root={tmp_path}/digits"]).runs[0].config


@pytest.fixture
def answers(monkeypatch):
    """What the probes answer; a test changes it."""
    given = {"torch": (True, json.dumps(TORCH)), "gloo": (True, ""), "nccl": (True, ""), "ffcv": (True, "1.0.2")}
    monkeypatch.setattr(software, "probe", given.__getitem__)
    return given


def on(config, **cluster):
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, **cluster))


def found(config, name):
    return [c for c in doctor.checks(config) if c.name == name]


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)


def test_probes_pass_on_this_machine():
    """Encode and decode through FFCV for real, in a process of its own; so does the all-reduce."""
    assert check.probe("ffcv") == (
        True,
        f"{probes.importlib.metadata.version('ffcv')}, writes and reads back exactly",
    )
    assert check.probe("gloo")[0]


def test_a_healthy_machine_passes_and_a_failure_fails(answers, capsys):
    assert doctor.doctor(None) == exitcodes.OK
    assert "✗" not in (out := capsys.readouterr().out) and "✓ ffcv" in out
    answers["ffcv"] = (False, "ImportError: libopencv_imgproc.so.406: cannot open shared object file")
    assert doctor.doctor(None) == exitcodes.FAILED
    out = capsys.readouterr().out
    assert "✗ ffcv" in out and "libopencv_imgproc" in out and "fix: make setup" in out and "1 problem" in out


def test_a_crashing_and_a_hanging_probe_are_told(monkeypatch, tmp_path):
    executable(tmp_path / "python", "#!/bin/sh\nkill -SEGV $$\n")
    monkeypatch.setattr(check.sys, "executable", str(tmp_path / "python"))
    assert check.probe("ffcv") == (False, "crashed with signal 11")
    executable(tmp_path / "python", "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(check, "PROBE_SECONDS", 0.2)
    assert check.probe("ffcv") == (False, "no answer within 0.2 s")


def test_torch_that_the_driver_is_too_old_for(answers, config, monkeypatch, tmp_path):
    executable(tmp_path / "nvidia-smi", "#!/bin/sh\necho 535.1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (gpu,) = found(on(config, device="cuda"), "gpu")
    assert gpu.ok is False and "driver 535.1 does not run CUDA 13.0" in gpu.fix
    assert found(config, "gpu")[0].ok is None  # the rehearsal needs no GPU


def test_fewer_gpus_than_ranks(answers, config):
    answers["torch"] = (True, json.dumps(TORCH | {"gpus": ["H100"] * 4}))
    (gpu,) = found(on(config, device="cuda", ranks_per_node=8), "gpu")
    assert gpu.ok is False and gpu.fix == "cluster.ranks_per_node=4"
    assert found(on(config, device="cuda", ranks_per_node=4), "gpu")[0].ok


def test_missing_and_outdated_packages(answers, monkeypatch):
    real = software.importlib.metadata.version
    monkeypatch.setattr(software.importlib.metadata, "version", lambda name: "1.0" if name == "pandas" else real(name))
    (packages,) = found(None, "packages")
    assert packages.ok is False and packages.found == "pandas 1.0, needs >=2.2" and "make setup" in packages.fix


def test_a_small_shared_memory_and_a_full_disk(answers, monkeypatch):
    usage = machine.shutil.disk_usage("/")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage._replace(free=64e6))
    assert found(None, "/dev/shm")[0].ok is False and "--shm-size" in found(None, "/dev/shm")[0].fix
    assert found(None, "disk")[0].ok is False


def test_the_wandb_key_is_never_printed(answers, config, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    online = dataclasses.replace(config, wandb=dataclasses.replace(config.wandb, mode="online"))
    assert found(online, "wandb")[0].ok is False and found(config, "wandb")[0].ok is None
    monkeypatch.setenv("WANDB_API_KEY", "secret-0123456789")
    assert found(online, "wandb")[0].ok
    doctor.doctor(config)
    assert "secret" not in capsys.readouterr().out


def test_slurm_commands_partition_and_what_the_site_would_refuse(answers, config, monkeypatch, tmp_path):
    slurm = on(config, name="slurm", nodes=2, ranks_per_node=8, partition="gpus")
    monkeypatch.setenv("PATH", "/nowhere")
    (missing,) = found(slurm, "slurm")
    assert missing.ok is False and "sbatch" in missing.found
    for command in ("sbatch", "srun", "squeue", "scontrol"):
        executable(tmp_path / command, "#!/bin/sh\n[ $1 = --test-only ] || exit 9\n")
    executable(tmp_path / "sinfo", "#!/bin/sh\necho gpu; echo cpu\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    (wrong,) = found(slurm, "slurm")
    assert wrong.ok is False and "no partition gpus; there are cpu, gpu" in wrong.found
    right = on(slurm, partition="gpu")
    (aux,) = found(on(right, aux_partition="cpus"), "slurm")
    assert aux.ok is False and "no partition cpus" in aux.found and aux.fix.startswith("cluster.aux_partition=")
    assert found(right, "slurm")[0].ok and found(right, "slurm job")[0].ok
    executable(tmp_path / "sbatch", "#!/bin/sh\necho 'allocation failure: Invalid account' >&2; exit 1\n")
    (job,) = found(right, "slurm job")
    assert job.ok is False and "Invalid account" in job.found


def test_flags_of_the_report_job_are_tried_too(answers, config, monkeypatch, tmp_path):
    """They are its own: refused at launch, it would be missing when the runs are queued."""
    for command in ("srun", "squeue", "scontrol"):
        executable(tmp_path / command, "#!/bin/sh\nexit 9\n")
    executable(tmp_path / "sinfo", "#!/bin/sh\necho gpu\n")
    refuse = 'case "$*" in *--dependency*) exit 8;; *--qos=fast*) echo "Invalid qos" >&2; exit 1;; esac'
    executable(tmp_path / "sbatch", f"#!/bin/sh\n[ $1 = --test-only ] || exit 9\n{refuse}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    cluster = {"name": "slurm", "partition": "gpu"}
    for extra, taken in (("--qos=slow", True), ("--qos=fast", False)):
        asked = on(config, **cluster, aux_extra=(extra,))
        assert found(asked, "slurm job")[0].ok
        (report,) = found(asked, "slurm report")
        assert report.ok is taken
    assert "Invalid qos" in report.found and "cluster.aux_extra" in report.fix


def test_data(answers, config, tmp_path):
    assert "made by `adarem launch`" in found(config, "data")[0].found
    real = dataclasses.replace(config, data=dataclasses.replace(config.data, embedded=False))
    (missing,) = found(real, "data")
    assert missing.ok is False and f"{tmp_path}/digits/train: no such folder" in missing.found
    for split in ("train", "val"):
        for i in range(10):
            (tmp_path / "digits" / split / str(i)).mkdir(parents=True)
    assert found(real, "data")[0].ok
    (tmp_path / "digits" / "val" / "9").rmdir()
    assert "val: 9 class folders" in found(real, "data")[0].found
