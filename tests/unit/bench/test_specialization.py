"""Specialization of a model folder, measured on real videos."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from dsts_ray.bench.specialization import _mcnemar, _other_neuron, specialization
from dsts_ray.config.load import config_to_yaml
from dsts_ray.data.index import index_dataset
from dsts_ray.errors import ConfigError
from dsts_ray.models.dsts.synapse import Selection, Synapse
from dsts_ray.train.checkpoint import save_weights
from tests.support.tiny import tiny_config, tiny_model
from tests.support.videos import write_video

CLASSES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    names = [f"clip{index}.mp4" for index in range(8)]
    for name in names:
        write_video(folder / name, width=64, height=64, num_frames=8)
    lines = [f"{name},{CLASSES[index % 4]},test\n" for index, name in enumerate(names)]
    (folder / "list.csv").write_text("".join(lines))
    out = folder / "manifest.parquet"
    index_dataset(format="csv", root=folder / "list.csv", out=out, num_processes=1)
    return out


def saved(folder: Path, *overrides: str) -> Path:
    config = tiny_config(*overrides)
    model = tiny_model(config, torch.float32)
    save_weights(folder, model, classes=CLASSES, config=config_to_yaml(config))
    return folder


def test_an_untrained_model_is_its_own_untrained_twin(tmp_path: Path, manifest: Path) -> None:
    found = specialization(saved(tmp_path), manifest, "test")
    assert found.num_videos == 8
    assert all(0.0 <= share <= 1.0 for share in found.utilization)
    assert len(found.information) == len(found.information_untrained) == 2
    assert 0.0 <= found.top1 <= 1.0
    assert 0.0 < found.p_value <= 1.0


def test_a_model_without_neurons_is_refused(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(ConfigError, match="no neurons to choose from"):
        specialization(saved(tmp_path, "dsts.enabled=false"), manifest, "test")


def test_rerouting_sends_every_sample_to_another_neuron() -> None:
    chosen = torch.arange(60) % 5
    selection = Selection(chosen, F.one_hot(chosen, 5).float(), torch.randn(60, 5))
    synapse = Synapse(channels=4, num_neurons=5)
    other = _other_neuron(synapse, (), selection, seed=0)
    assert not bool((other.chosen == chosen).any())
    assert torch.equal(other.weights.argmax(1), other.chosen)
    assert set(other.chosen.tolist()) == set(range(5))


@pytest.mark.parametrize(
    ("only_one", "only_other", "p_value"), [(0, 0, 1.0), (5, 0, 1 / 32), (3, 1, 5 / 16)]
)
def test_mcnemar_is_exact(only_one: int, only_other: int, p_value: float) -> None:
    assert _mcnemar(only_one, only_other) == p_value
