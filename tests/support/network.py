"""A network of its own on this machine: hosts with addresses, whose cables can be pulled."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

NETWORK = "10.77.0"


@dataclass
class Network:
    """Hosts, as network namespaces, on a bridge; this machine is the first."""

    name: str = field(default_factory=lambda: f"dsts{os.getpid() % 100_000}")
    num_hosts: int = 1

    @property
    def address(self) -> str:
        """Of this machine."""
        return f"{NETWORK}.1"

    def add_host(self) -> tuple[str, tuple[str, ...]]:
        """Add a host; returns its address, and what a command is begun with to run there."""
        self.num_hosts += 1
        host, cable = f"{self.name}-{self.num_hosts}", self._cable(self.num_hosts)
        address = f"{NETWORK}.{self.num_hosts}"
        _ip("netns", "add", host)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", host)
        _ip("link", "set", cable, "master", self.name, "up")
        _ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host, "link", "set", device, "up")
        return address, ("ip", "netns", "exec", host, "env", "GLOO_SOCKET_IFNAME=eth0")

    def cut(self, address: str) -> None:
        """Pull a host's cable."""
        _ip("link", "set", self._cable(int(address.rpartition(".")[2])), "down")

    def mend(self, address: str) -> None:
        """Put it back."""
        _ip("link", "set", self._cable(int(address.rpartition(".")[2])), "up")

    def _cable(self, number: int) -> str:
        return f"{self.name}v{number}"


@contextlib.contextmanager
def network() -> Iterator[Network | str]:
    """A network with this machine alone, or why there can be none; root makes it."""
    made = Network()
    try:
        _ip("link", "add", made.name, "type", "bridge")
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        yield f"no network namespaces: {getattr(error, 'stderr', error)}"
        return
    try:
        _ip("addr", "add", f"{made.address}/24", "dev", made.name)
        _ip("link", "set", made.name, "up")
        yield made
    finally:
        for number in range(2, made.num_hosts + 1):
            _ip("netns", "del", f"{made.name}-{number}")
        _ip("link", "del", made.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
