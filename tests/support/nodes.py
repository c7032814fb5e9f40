"""Ray clusters of several nodes on this machine, and what befalls them."""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.jobs import Home, free_port, kill_tree, session, wait_for

Node = subprocess.Popen[str]
STORE_BYTES = 150 * 1024**2
"""Of each node: more than twice the blocks that its decoders have in the making."""


@dataclass
class Nodes:
    """A cluster of nodes with addresses of their own, 127.0.0.2 and on but for the head.

    The head decodes; workers need two CPUs, which the other nodes alone have.

    Attributes:
        home: Of the user who starts it.
        temporary: Of the cluster; its path must be short.
        head: Address of the head.
    """

    home: Home
    temporary: Path
    head: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    nodes: list[Node] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.head}:{self.port}"

    def start_head(self, *options: str) -> None:
        """Start the first node."""
        fixed = ("--head", f"--port={self.port}", "--num-cpus=1", "--include-dashboard=false")
        self._start(self.head, (), *fixed, f"--temp-dir={self.temporary}", *options)

    def start_node(self, *options: str, address: str = "", run_there: tuple[str, ...] = ()) -> Node:
        """Start a further node, on another host where a command to run there is given."""
        address = address or f"127.0.0.{len(self.nodes) + 1}"
        fixed = (f"--address={self.address}", "--num-cpus=2")
        return self._start(address, run_there, *fixed, *options)

    def _start(self, address: str, run_there: tuple[str, ...], *options: str) -> Node:
        log = self.home.folder / f"node{len(self.nodes)}.log"
        shared = (
            "--block",
            f"--node-ip-address={address}",
            f"--object-store-memory={STORE_BYTES}",
            "--min-worker-port=0",
            "--max-worker-port=0",
        )
        with log.open("w") as out:
            start = (*run_there, "ray", "start", *shared, *options)
            node = self.home.spawn(*start, out=out, variables={"RAY_AUTH_MODE": "disabled"})
        self.nodes.append(node)
        self.addresses.append(address)
        wait_for(node, lambda: "Ray runtime started" in log.read_text(), 90, log.read_text)
        return node

    def train(self, *overrides: str, **variables: str) -> "Training":
        """Start ``jobs/train.py`` on the cluster."""
        out = self.home.folder / f"train{time.monotonic_ns()}.log"
        variables = {
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "disabled",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",  # several runs may share two cores
        } | variables
        with out.open("w") as log:
            process = self.home.start("train.py", *overrides, out=log, variables=variables)
        return Training(process, out, self.home)


@dataclass(frozen=True)
class Training:
    """A run of ``jobs/train.py``."""

    process: subprocess.Popen[str]
    out: Path
    home: Home

    @property
    def folder(self) -> Path:
        """Run folder, once there is one."""
        (config,) = self.home.work.glob("runs/*/config.yaml")
        return config.parent

    def told(self) -> str:
        """What it has printed."""
        return self.out.read_text()

    def num_recorded(self) -> int:
        """Steps whose clips have been taken down, those before them included."""
        files = self.home.work.glob("runs/*/samples/*.parquet")
        return max((int(path.stem.partition("-")[2]) for path in files), default=0)

    def reached(self, step: int) -> None:
        """Wait until clips of this step, from 0, or a later one have been taken down."""
        self.wait_for(lambda: self.num_recorded() > step)

    def recovered(self, line: str, fault: Callable[[], object]) -> float:
        """Do what goes wrong; returns seconds until workers start again, as a line says."""
        before = self.told().count(line)
        started = time.monotonic()
        fault()
        self.wait_for(lambda: self.told().count(line) > before)
        return time.monotonic() - started

    def wait_for(self, happened: Callable[[], object], seconds: float = 420) -> float:
        """Wait until something has happened in the run, which must not end; returns seconds."""
        return wait_for(self.process, happened, seconds, self.told)

    def stop(self) -> None:
        """Ask it to end after a checkpoint, and see that it does."""
        self.process.send_signal(signal.SIGTERM)
        assert self.ended() == 2, self.told()

    def ended(self, seconds: float = 600) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(seconds)


@contextlib.contextmanager
def cluster(
    home: Home, temporary: Path, head: str = "127.0.0.1", options: Sequence[str] = ()
) -> Iterator[Nodes]:
    """A cluster with its head alone; all its processes end with the context."""
    nodes = Nodes(home, temporary, head)
    try:
        nodes.start_head(*options)
        yield nodes
    finally:
        for node in reversed(nodes.nodes):
            for process in session(node):  # a stopped one must be gone, too
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
            kill_tree(node)


def training_workers(node: Node) -> list[psutil.Process]:
    """Processes of a node, or of a driver with a cluster of its own, that train."""
    return processes(node, "RayTrainWorker")


def processes(node: Node, name: str) -> list[psutil.Process]:
    """Processes of a node whose title tells of an actor of this class."""
    found = []
    for process in session(node):
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            if name in process.cmdline()[0]:
                found.append(process)
    return found


def spilled_objects(nodes: Nodes) -> list[Path]:
    """Files that hold what the nodes' object stores had no room for."""
    return list(nodes.temporary.glob("session_2*/ray_spilled_objects_*/*"))


def node_id(nodes: Nodes, node: Node) -> str:
    """Ray's name for a node."""
    address = nodes.addresses[nodes.nodes.index(node)]
    code = (
        "import ray; ray.init(address='auto', log_to_driver=False, logging_level='ERROR');"
        f"print(next(n['NodeID'] for n in ray.nodes() if n['Alive'] and n['NodeManagerAddress']"
        f" == {address!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=nodes.home.environment(RAY_ADDRESS=nodes.address, RAY_AUTH_MODE="disabled"),
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"[0-9a-f]{56}", result.stdout)[-1]


def drain(nodes: Nodes, name: str, *, seconds: int) -> None:
    """Tell the cluster that a node is about to be taken away, as a cloud does, and take it away."""
    address = f"--address={nodes.address}"
    reason = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot instance")
    subprocess.run(
        [
            *("ray", "drain-node", address, f"--node-id={name}", *reason),
            f"--deadline-remaining-seconds={seconds}",
        ],
        env=nodes.home.environment(RAY_AUTH_MODE="disabled"),
        capture_output=True,
        check=True,
    )
