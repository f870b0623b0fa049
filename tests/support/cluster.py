"""A real Slurm cluster of two nodes on one machine: munged, slurmctld and two slurmd in folders and ports of their own.

python -m tests.support.cluster     starts one and opens a shell in it, to try things by hand
"""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
MUNGE_SOCKET = Path("/run/munge/munge.socket.2")
MUNGE_LOCK, MUNGE_USERS = (MUNGE_SOCKET.with_name(f"adarem.{name}") for name in ("lock", "users"))
HOSTS = Path("/etc/hosts")

CONF = """\
ClusterName=adarem{id}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=20
SlurmdTimeout=20
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=100000,batch_sched_delay=0,bf_interval=1
SlurmctldPidFile={dir}/slurmctld.pid
SlurmctldLogFile={dir}/slurmctld.log
StateSaveLocation={dir}/state
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmdSpoolDir={dir}/spool-%n
SlurmdLogFile={dir}/slurmd-%n.log
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs=8 RealMemory=8000 Gres=gpu:8 State=UNKNOWN
PartitionName=test Nodes={nodes} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    lacking = [c for c in NEEDED if shutil.which(c, path=_path()) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "slurmctld and slurmd of two nodes on one machine need root"
    return None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_ports(n: int) -> list[int]:
    """``n`` free ports in a row; slurm.conf wants the nodes' ports as a range. Clusters that start at once differ."""
    for first in range(20000 + os.getpid() % 3000 * n, 32000, n):
        sockets = [socket.socket() for _ in range(n)]
        try:
            for i, s in enumerate(sockets):
                s.bind(("127.0.0.1", first + i))
            return list(range(first, first + n))
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no free ports")


def _munge_answers() -> bool:
    return subprocess.run(["munge", "-n"], capture_output=True).returncode == 0


@contextlib.contextmanager
def _munged() -> Iterator[None]:
    """A munged while any cluster on this machine needs it: the first starts one unless one runs, the last stops it."""
    MUNGE_SOCKET.parent.mkdir(mode=0o755, exist_ok=True)
    with open(MUNGE_LOCK, "a+") as turn, open(MUNGE_USERS, "a+") as users:  # users holds the pid of one started here
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not _munge_answers():
            shutil.chown(MUNGE_SOCKET.parent, "munge", "munge")
            daemon = subprocess.Popen(
                ["munged", "--foreground"], user="munge", group="munge", extra_groups=[], env={"PATH": _path()},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            users.truncate(0)
            users.write(f"{daemon.pid}")
            users.flush()
            _until(_munge_answers, "munged", 20)
        fcntl.flock(users, fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with contextlib.suppress(BlockingIOError):  # another cluster still uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                users.seek(0)
                pid = users.read()
                users.truncate(0)
                if pid and _words(int(pid))[0] == b"munged":
                    os.kill(int(pid), signal.SIGTERM)
                    _until(lambda: not _munge_answers(), "munged's end", 20)


def _processes_on(node: str) -> list[int]:
    """Every slurmstepd of one node, then its tasks and batch shells: none is left to report the others' end."""
    tasks, parents = [], {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if f"SLURMD_NODENAME={node}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                tasks.append(pid)
    steps = {parents[pid] for pid in tasks} - set(tasks)
    return [p for p in steps if b"slurmstepd" in _words(p)[0]] + tasks


def _words(pid: int) -> list[bytes]:
    """The command line of a process; of one that is gone, an empty word."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


@dataclass
class Cluster:
    """A running cluster."""

    env: dict[str, str]  # in which sbatch, srun and squeue talk to it
    nodes: dict[str, subprocess.Popen]  # slurmd by node, in the order in which jobs get them
    start: Callable[[str], None]  # starts the slurmd of a node

    def ranks_on(self, node: str) -> list[int]:
        """Process ids of the training processes there."""
        return [pid for pid in _processes_on(node) if _words(pid)[1:4] == [b"-m", b"adarem", b"train"]]

    def kill_slurmd(self, node: str) -> None:
        """The daemon alone; what it started runs on."""
        self.nodes[node].kill()
        self.nodes[node].wait()

    def kill_node(self, node: str) -> None:
        """As a power cut: the daemon and everything that runs there."""
        self.kill_slurmd(node)
        for pid in _processes_on(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _until(ready, what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} is not up after {seconds:.0f} s")
        time.sleep(0.2)


@contextlib.contextmanager
def _hosts(names: list[str]) -> Iterator[None]:
    """Node names resolve while the cluster is up."""
    line = f"127.0.0.1 {' '.join(names)}\n"
    with open(HOSTS, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # another cluster may start or stop at this moment
        f.write(line)
    try:
        yield
    finally:  # written in place: in a container the file is a mount point, which cannot be replaced
        with open(HOSTS, "r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            kept = f.read().replace(line, "")
            f.seek(0)
            f.truncate()
            f.write(kept)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Yields a cluster that is up, and takes down what it started."""
    id = str(os.getpid())
    names = [f"a{id}n1", f"a{id}n2"]
    root = Path(tempfile.mkdtemp(prefix="adarem-slurm-"))
    host = socket.gethostname().split(".")[0]
    controller, one, two = _free_ports(3)
    (root / "state").mkdir()
    for i in range(8):
        (root / f"gpu{i}").touch()
    nodes = f"a{id}n[1-2]"
    (root / "slurm.conf").write_text(
        CONF.format(id=id, host=host, controller=controller, dir=root, nodes=nodes, ports=f"[{one}-{two}]")
    )
    (root / "gres.conf").write_text(f"NodeName={nodes} Name=gpu File={root}/gpu[0-7]\n")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    env |= {"SLURM_CONF": str(root / "slurm.conf"), "PATH": _path()}
    daemons: list[subprocess.Popen] = []
    slurmd: dict[str, subprocess.Popen] = {}
    conf = env["SLURM_CONF"]

    def start(name: str, *command: str) -> subprocess.Popen:
        log = open(root / f"{name}.out", "wb")  # noqa: SIM115
        # A test run that is killed takes its daemons along.
        command = ("setpriv", "--pdeathsig", "TERM", *command)
        daemons.append(
            subprocess.Popen(command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        )
        return daemons[-1]

    def start_node(name: str) -> None:
        slurmd[name] = start(name, "slurmd", "-D", "-f", conf, "-N", name)

    with _hosts(names), _munged():
        try:
            start("slurmctld", "slurmctld", "-D", "-c", "-f", conf)
            for name in names:
                start_node(name)

            def idle() -> bool:
                ask = ["sinfo", "--noheader", "--format=%D %t"]
                return subprocess.run(ask, env=env, capture_output=True, text=True).stdout.split() == ["2", "idle"]

            _until(idle, f"Slurm (logs in {root})", 60)
            yield Cluster(env, slurmd, start_node)
        finally:
            jobs = ["squeue", "--noheader", "--format=%A"]
            left = subprocess.run(jobs, env=env, capture_output=True, text=True).stdout.split()
            if left:
                subprocess.run(["scancel", "--full", "--signal=KILL", *left], env=env)
                with contextlib.suppress(RuntimeError):  # their daemons end them otherwise
                    _until(lambda: not subprocess.run(jobs, env=env, capture_output=True).stdout.strip(), "Slurm", 10)
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(15)
                except subprocess.TimeoutExpired:
                    daemon.kill()
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster() as running:
        subprocess.run([os.environ.get("SHELL", "/bin/bash"), *sys.argv[1:]], env=running.env)
