import pytest

from dsts_ray.config.load import load_config
from dsts_ray.config.schema import Config
from dsts_ray.errors import ClusterError
from dsts_ray.launch import cluster


@pytest.fixture
def config() -> Config:
    """Two workers and two pools of one decoder, two CPUs together."""
    cpus = ("scaling.cpus_per_worker=0.75", "data.cpus_per_decoder=0.25")
    return load_config(preset="demo", overrides=["scaling.num_workers=2", *cpus])


def test_what_counts_the_rows_needs_cpus_beside_workers_and_decoders(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cluster_of(num_cpus: float) -> None:
        monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": num_cpus})

    cluster_of(2.0)
    with pytest.raises(ClusterError, match=r"asks for 2\.2 CPUs.* 0\.1.*the cluster has 2\."):
        cluster.check_resources(config)
    cluster_of(2.2)
    cluster.check_resources(config)
    cluster_of(1.75)
    with pytest.raises(ClusterError, match=r"asks for 1\.85 CPUs.* 0\.1.*the cluster has 1\.75"):
        cluster.check_evaluation_resources(config, num_workers=2)
    cluster_of(1.85)
    cluster.check_evaluation_resources(config, num_workers=2)
