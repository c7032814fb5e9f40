"""Where a job runs that no cluster was named for."""

import sys
from pathlib import Path

from tests.support.jobs import Home, free_port

CONNECT = """
import ray
from dsts_ray.launch.cluster import connected

with connected():
    print(len(ray.nodes()), ray.is_initialized())
"""


def test_a_cluster_that_runs_on_this_machine_is_left_alone(tmp_path: Path, temporary: Path) -> None:
    """``ray start --head`` leaves its address there, for whoever connects without one."""
    (temporary / "ray").mkdir()
    (temporary / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    home = Home(tmp_path)
    home.token.parent.mkdir()
    home.token.write_text("0" * 64)  # by an earlier ray.init of somebody else's
    told = home.run(sys.executable, "-c", CONNECT, RAY_TMPDIR=str(temporary))
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == ["1", "True"]


def test_a_cluster_that_does_not_start_is_one_clear_error(tmp_path: Path, temporary: Path) -> None:
    """Its sockets' paths would be too long."""
    folder = temporary / ("x" * 100)
    folder.mkdir()
    home = Home(tmp_path)
    told = home.run(sys.executable, "-c", CONNECT, RAY_TMPDIR=str(folder))
    error = told.stderr.splitlines()[-1]
    assert "ClusterError: Ray did not start on this machine (" in error
    assert "AF_UNIX path length" in error
