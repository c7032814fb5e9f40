from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from dsts_ray.config.load import load_config
from dsts_ray.config.schema import Config
from dsts_ray.errors import ClusterError
from dsts_ray.launch import cluster

ClusterOf = Callable[..., None]


@pytest.fixture
def config() -> Config:
    """Two workers and two pools of one decoder, two CPUs together."""
    return _configured()


@pytest.fixture
def cluster_of(monkeypatch: pytest.MonkeyPatch) -> ClusterOf:
    """Pretend that the cluster has nodes of these resources, and one that died."""

    def pretend(*nodes: dict[str, float]) -> None:
        dead = {"Alive": False, "Resources": {"CPU": 99.0}}
        table = [dead, *({"Alive": True, "Resources": node} for node in nodes)]
        total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
        monkeypatch.setattr(cluster.ray, "nodes", lambda: table)
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: total)

    return pretend


@pytest.fixture
def console() -> Console:
    return Console(width=200, force_terminal=False)


def _configured(*overrides: str) -> Config:
    cpus = ("scaling.cpus_per_worker=0.75", "data.cpus_per_decoder=0.25")
    return load_config(preset="demo", overrides=["scaling.num_workers=2", *cpus, *overrides])


def test_what_counts_the_rows_needs_cpus_beside_workers_and_decoders(
    config: Config, cluster_of: ClusterOf, console: Console
) -> None:
    cluster_of({"CPU": 2.0})
    with pytest.raises(ClusterError, match=r"asks for 2\.2 CPUs.* 0\.1.*cluster has 2 CPU \(1 no"):
        cluster.check_resources(config, console)
    cluster_of({"CPU": 2.2})
    cluster.check_resources(config, console)
    cluster_of({"CPU": 1.75})
    with pytest.raises(ClusterError, match=r"asks for 1\.85 CPUs.* 0\.1.*cluster has 1\.75 CPU"):
        cluster.check_evaluation_resources(config, num_workers=2)
    cluster_of({"CPU": 1.85})
    cluster.check_evaluation_resources(config, num_workers=2)


def test_a_refusal_says_what_would_fit(
    config: Config, cluster_of: ClusterOf, console: Console
) -> None:
    cluster_of({"CPU": 0.9}, {"CPU": 0.9}, {"CPU": 0.5})
    with pytest.raises(ClusterError, match=r"has 2\.3 CPU \(1 node of 0\.5 CPU; 2 nodes of 0\.9"):
        cluster.check_resources(_configured("data.num_decoders=2"), console)
    cluster_of({"CPU": 1.0}, {"CPU": 0.7}, {"CPU": 0.7})
    with pytest.raises(ClusterError, match=r"on a node: 1 would fit beside the decoders\. Lower"):
        cluster.check_resources(config, console)
    cluster_of({"CPU": 0.7}, {"CPU": 0.7}, {"CPU": 0.7}, {"CPU": 0.7})
    with pytest.raises(ClusterError, match="on a node, and none does beside the decoders"):
        cluster.check_resources(config, console)
    cluster_of(*[{"CPU": 0.2}] * 20)
    with pytest.raises(ClusterError, match="Even without workers not every decoder"):
        cluster.check_resources(config, console)


def test_gpus_and_named_resources_that_no_node_has(cluster_of: ClusterOf, console: Console) -> None:
    cluster_of({"CPU": 8.0})
    with pytest.raises(ClusterError, match=r"0\.75 and a GPU.*has 8 CPU, 0 GPU.*use_gpu=false"):
        cluster.check_resources(_configured("scaling.use_gpu=true"), console)
    with pytest.raises(ClusterError, match=r"as much decode.*no node offers data\.decoder"):
        cluster.check_resources(_configured("data.decoder_resource=decode"), console)
    with pytest.raises(ClusterError, match=r"loosen scaling\.placement_strategy=STRICT_SPREAD"):
        cluster.check_resources(_configured("scaling.placement_strategy=STRICT_SPREAD"), console)
    cluster_of({"CPU": 8.0}, {"CPU": 1.0, "decode": 1.0})
    cluster.check_resources(_configured("data.decoder_resource=decode"), console)
    cluster_of({"CPU": 8.0, "GPU": 1.0})
    with pytest.raises(ClusterError, match=r"evaluation asks .* and a GPU.* 1 would fit"):
        cluster.check_evaluation_resources(_configured(), num_workers=2)


def test_it_waits_for_nodes_and_says_so(
    cluster_of: ClusterOf,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[list[dict[str, float]]] = []

    def ask(*, bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)

    coming: list[Any] = [({"CPU": 1.0},), ({"CPU": 1.0}, {"CPU": 1.0}), ({"CPU": 1.0},) * 3]

    def sleep(_seconds: float) -> None:
        cluster_of(*coming.pop(0))

    monkeypatch.setattr(cluster, "request_resources", ask)
    monkeypatch.setattr(cluster.time, "sleep", sleep)
    cluster_of({"CPU": 1.0})
    cluster.check_resources(_configured("scaling.wait_for_nodes_s=60"), console)
    bundles = [{"CPU": 0.75}] * 2 + [{"CPU": 0.25}] * 2 + [{"CPU": 0.1}] * 2
    assert asked == [bundles, []]
    told = capsys.readouterr().out.splitlines()
    assert [line.partition("; ")[2] for line in told] == [
        "the cluster has 1 CPU (1 node of 1 CPU)",
        "the cluster has 2 CPU (2 nodes of 1 CPU)",
    ]
    assert told[0].startswith("waiting 60 s at most for nodes")


def test_it_waits_no_longer_than_it_was_told(
    cluster_of: ClusterOf, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked = [1000.0], []
    monkeypatch.setattr(cluster, "request_resources", lambda *, bundles: asked.append(bundles))
    monkeypatch.setattr(cluster.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cluster.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    cluster_of({"CPU": 1.0})
    with pytest.raises(ClusterError, match=r"asks for 2\.2 CPUs"):
        cluster.check_resources(_configured("scaling.wait_for_nodes_s=60"), console)
    assert 1060.0 <= now[0] < 1065.0
    assert asked[-1] == []
    with pytest.raises(ClusterError, match=r"asks for 2\.2 CPUs"):
        cluster.check_resources(_configured(), console)
    assert len(asked) == 2  # without the key nobody is asked


def test_a_node_that_starts_too_slowly_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises a plain exception after 30 s."""

    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)  # by other tests
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(ClusterError, match=r"did not start .*timed out.*try again when less else"),
        cluster.connected(),
    ):
        pytest.fail("it is connected")
