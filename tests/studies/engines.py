"""Slurm and Ray as tests start them on this machine: real daemons, on free ports."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NODES = 2

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=30
OverTimeLimit=0
SchedulerParameters=sched_interval=2
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first}-{last} CPUs=1
PartitionName=cpu Nodes=ALL Default=YES State=UP
"""


def free_port(count: int = 1) -> int:
    """The first of some ports in a row that nobody listens on."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            for more in range(1, count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + more))
            return port


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


class Slurm:
    """slurmctld and two slurmd of this machine, without munge and without accounting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("state", "n1", "n2"):
            (folder / name).mkdir()
        port = free_port(NODES + 1)
        places = {"ports": [port], "first": f"[{port + 1}", "last": f"{port + NODES}]"}
        who = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser()}
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONF.format(folder=folder, nodes=NODES, **who, **places))
        self.env = os.environ | {"SLURM_CONF": str(self.conf)}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """`slurmctld`, or slurmd under the name of a node."""
        words = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name]
        words[0] = f"/usr/sbin/{words[0]}"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(words, stdout=log, stderr=log, env=self.env)

    def kill(self, name: str) -> None:
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def ask(self, *words: str) -> str:
        done = subprocess.run(words, env=self.env, capture_output=True, text=True)
        return done.stdout + done.stderr

    def ids(self) -> list[str]:
        return self.ask("squeue", "--noheader", "--format=%i", "--states=RUNNING").split()

    def steps(self) -> list[int]:
        """The step daemons and what they started, oldest first."""
        text = subprocess.run(
            ["ps", "-e", "-o", "pid=,ppid=,args="], capture_output=True, text=True
        ).stdout
        rows = [line.split(None, 2) for line in text.splitlines()]
        found = {int(r[0]) for r in rows if r[2].startswith("slurmstepd")} & _of(self, rows)
        while more := {int(r[0]) for r in rows if int(r[1]) in found} - found:
            found |= more
        return sorted(found)


def _of(slurm: Slurm, rows: list[list[str]]) -> set[int]:
    """The processes whose environment names this cluster: other tests have their own."""
    found = set()
    for row in rows:
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{row[0]}/environ").read_bytes()
            if f"SLURM_CONF={slurm.conf}".encode() in environment:
                found.add(int(row[0]))
    return found


@contextlib.contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster that takes jobs."""
    slurm = Slurm(folder)
    try:
        for name in ("slurmctld", "n1", "n2"):
            slurm.start(name)
        wait_for(lambda: slurm.ask("sinfo", "--noheader", "--format=%T").strip() == "idle", 60)
        yield slurm
    finally:
        slurm.ask("scancel", "--me")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not slurm.steps(), 40)
        for process in slurm.daemons.values():
            process.send_signal(signal.SIGTERM)
        for process in slurm.daemons.values():
            process.wait(20)


class RayCluster:
    """A head and workers of Ray on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Starts a head, on a port of its own, and two nodes."""
        self.port = free_port()
        for head in (True, False, False):
            self.start(head=head)

    def start(self, *, head: bool) -> None:
        """Starts a node and waits until it answers."""
        place = ["--head", f"--port={self.port}"] if head else [f"--address={self.address}"]
        more = ["--include-dashboard=false", "--num-cpus=0"] if head else ["--num-cpus=1"]
        log = self.folder / f"ray-{len(self.nodes)}.log"
        words = ["start", "--block", "--disable-usage-stats", *place, *more]
        with log.open("wb") as file:
            command = [str(Path(sys.executable).with_name("ray")), *words]
            self.nodes.append(subprocess.Popen(command, stdout=file, stderr=file))
        wait_for(lambda: "Ray runtime started" in log.read_text())

    def with_a_job(self) -> int:
        """The number of a node on which a job is at work."""
        for number, node in enumerate(self.nodes):
            for process in _below(node.pid):
                with contextlib.suppress(OSError):
                    if b"stopgrad.studies.node" in Path(f"/proc/{process}/cmdline").read_bytes():
                        return number
        raise AssertionError("no node has a job")

    def kill(self, number: int) -> None:
        """Kills all processes of a node at once, jobs included, as a machine that lost power."""
        for process in _below(self.nodes[number].pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.nodes[number].wait()

    def end(self) -> None:
        for number in range(len(self.nodes)):
            self.kill(number)


def _below(process: int) -> list[int]:
    """A process and all that it started, at whatever depth."""
    text = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = dict(map(int, line.split()) for line in text.splitlines())
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found
