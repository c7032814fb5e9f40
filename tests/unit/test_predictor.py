from pathlib import Path

import numpy as np
import pytest
import torch

from dsts_ray.build import build_model
from dsts_ray.config.load import config_to_yaml
from dsts_ray.errors import CheckpointError
from dsts_ray.predictor import VideoPredictor, load_predictor, most_probable
from dsts_ray.train.checkpoint import CONFIG_FILE, WEIGHTS_FILE, save_weights
from dsts_ray.train.evaluate import NOT_SEEN
from tests.support.tiny import tiny_config
from tests.support.videos import write_video

CLASSES = ("forward pike", "back tuck", "inward", "reverse")
CONFIG = tiny_config("model.backbone.tpn.auxiliary_loss_weight=0.5")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model = build_model(CONFIG, len(CLASSES))
    torch.nn.init.normal_(model.classifier.fc.weight)
    save_weights(folder, model, classes=CLASSES, config=config_to_yaml(CONFIG))
    return folder


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> VideoPredictor:
    return load_predictor(model_folder)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "dive.mp4")


def test_paths_and_bytes_give_the_same_prediction(predictor: VideoPredictor, video: Path) -> None:
    one, other = predictor.predict([str(video), video.read_bytes()], top_k=3)
    assert one == other
    assert one.error is None
    assert len(one.classes) == 3
    assert set(one.classes) < set(CLASSES)
    assert one.probabilities == sorted(one.probabilities, reverse=True)
    assert len(one.neurons) == 2
    assert all(0 <= neuron < 3 for neuron in one.neurons)


def test_no_more_classes_than_there_are(predictor: VideoPredictor, video: Path) -> None:
    (prediction,) = predictor.predict([str(video)], top_k=100)
    assert sorted(prediction.classes) == sorted(CLASSES)
    assert sum(prediction.probabilities) == pytest.approx(1.0, abs=1e-5)


def test_a_broken_video_has_an_error_and_the_others_a_prediction(
    predictor: VideoPredictor, video: Path, tmp_path: Path
) -> None:
    missing = tmp_path / "missing.mp4"
    broken, absent, good = predictor.predict([b"no video", str(missing), str(video)], top_k=1)
    assert broken.error
    assert absent.error is not None
    assert "missing.mp4" in absent.error
    assert (broken.classes, broken.probabilities, broken.neurons) == ([], [], [])
    assert good.error is None


def test_a_predictor_fetches_nothing_from_elsewhere(predictor: VideoPredictor) -> None:
    """It serves others: what they name must not be asked for from this machine."""
    (prediction,) = predictor.predict(["http://127.0.0.1:9/video.mp4"], top_k=1)
    assert prediction.error == (
        "http://127.0.0.1:9/video.mp4: give a file of this machine, or its bytes"
    )
    assert prediction.classes == []


def test_the_model_is_in_evaluation_mode(predictor: VideoPredictor) -> None:
    assert not any(module.training for module in predictor.predict_views.model.modules())


@pytest.mark.parametrize("file", [WEIGHTS_FILE, CONFIG_FILE])
def test_a_missing_file_is_named(model_folder: Path, tmp_path: Path, file: str) -> None:
    for path in model_folder.iterdir():
        if path.name != file:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=file):
        load_predictor(tmp_path)


def test_a_model_of_another_version_says_so(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes((model_folder / WEIGHTS_FILE).read_bytes())
    (tmp_path / CONFIG_FILE).write_text(config_to_yaml(CONFIG) + "future: 1\n")
    with pytest.raises(
        CheckpointError, match=r"another version[^.]* needs that version.*\n.*future"
    ):
        load_predictor(tmp_path)


def test_weights_of_another_configuration_are_refused(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes((model_folder / WEIGHTS_FILE).read_bytes())
    (tmp_path / CONFIG_FILE).write_text(config_to_yaml(tiny_config("dsts.num_neurons=4")))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_predictor(tmp_path)


def test_the_neurons_told_are_those_of_most_views_that_were_seen() -> None:
    unseen = [NOT_SEEN, NOT_SEEN]
    predicted = {
        "probabilities": np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], np.float32),
        "chosen": np.array([[unseen, unseen, [2, 0]], [[1, 0], [1, 2], [0, 2]]]),
    }
    told = most_probable(predicted, 2)
    assert told.labels.tolist() == [[1, 2], [0, 2]]
    np.testing.assert_allclose(told.probabilities, [[0.7, 0.2], [0.5, 0.3]])
    assert told.neurons.tolist() == [[2, 0], [1, 2]]
    without_dsts = predicted | {"chosen": np.zeros((2, 3, 0), np.int64)}
    assert most_probable(without_dsts, 9).neurons.shape == (2, 0)
    assert most_probable(without_dsts, 9).labels.shape == (2, 3)
