import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from dsts_ray.errors import ClusterError, DataError
from dsts_ray.models.dsts.gates import Gates
from dsts_ray.models.dsts.module import DSTSLayer
from dsts_ray.models.recognizer import Recognition, Recognizer
from dsts_ray.train.evaluate import (
    NOT_SEEN,
    Average,
    Predictions,
    TimedPredictor,
    ViewPredictor,
    average_views,
    collect,
    gate_metrics,
    predict_split,
    score,
)
from tests.support.tiny import copied_state, tiny_config, tiny_model
from tests.support.workers import evaluation_block as block_of

CLASSES = ("a", "b", "c", "d")
BLOCKS = [
    block_of([2, 3], ["", "broken"]),
    block_of([0, 1], ["", ""]),
    block_of([4, -1], ["gone", "fills the last block"]),
    block_of([-1, -1], ["fills the last block"] * 2),
]


def predictor(model: Recognizer, **options: Any) -> ViewPredictor:  # noqa: ANN401
    chosen = {"average": "softmax", "batch_size": 2, "refused": "wrong", **options}
    return ViewPredictor(model, torch.device("cpu"), **chosen)


def tiny(*overrides: str) -> Recognizer:
    return tiny_model(tiny_config(*overrides), torch.float32)


class LogitsOf(torch.nn.Module):
    """Reads the logits of a view from its first pixels, before normalization."""

    def forward(self, clips: Tensor, draws: object = None) -> Recognition:
        pixels = clips[:, 0, 0, 0, :4] * 0.229 * 255 + 0.485 * 255
        logits = pixels.round() - 100
        logits = torch.where(logits == 155, torch.nan, logits)
        return Recognition(logits, ())


def views_with(logits: Sequence[Sequence[Sequence[float]]]) -> Mapping[str, np.ndarray]:
    """A block whose views have these logits, integers between -100 and 154; 155 is not a number."""
    rows = block_of(range(len(logits)), [""] * len(logits), num_views=len(logits[0]))
    rows["clip"][:, :, 0, 0, :4, 0] = np.array(logits) + 100
    return rows


def recorded(logits: Sequence[Sequence[Sequence[float]]], **options: Any) -> Predictions:  # noqa: ANN401
    predict = predictor(cast(Recognizer, LogitsOf()), **options)
    return collect([predict(views_with(logits))], len(logits))


def test_rows_without_a_sample_are_left_out_and_refused_ones_are_zero() -> None:
    predictions = predict_split(predictor(tiny()), BLOCKS, 5)
    assert predictions.refused == {3: "broken", 4: "gone"}
    assert predictions.labels.tolist() == [0, 1, 2, 3, 0]
    sums = predictions.probabilities.sum(1)
    torch.testing.assert_close(sums, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))
    assert predictions.chosen.shape == (5, 1, 2)
    assert (predictions.chosen[3:] == NOT_SEEN).all()
    assert predictions.views_seen.tolist() == [1, 1, 1, 0, 0]


def test_predictions_are_those_of_evaluation_mode() -> None:
    model = tiny()
    before = copied_state(model)
    one = predict_split(predictor(model), BLOCKS, 5)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    singles = [block_of([i], ["broken" if i > 2 else ""]) for i in range(5)]
    other = predict_split(predictor(model), singles, 5)
    torch.testing.assert_close(one.probabilities, other.probabilities, rtol=1e-5, atol=1e-6)
    assert torch.equal(one.chosen, other.chosen)


def test_the_time_of_a_view_is_that_of_predicting_alone() -> None:
    timed = TimedPredictor(lambda rows: time.sleep(0.02) or dict(rows))
    assert timed.metrics == {}
    blocks = [block_of([0, 1], ["", ""], num_views=3), block_of([2], [""], num_views=3)]
    for block in blocks:
        time.sleep(0.05)  # decoding
        assert timed(block)["sample_id"] is block["sample_id"]
    assert 0.04 / 9 <= timed.metrics["time/inference_view_s"] < 0.09 / 9


def test_what_shares_a_forward_pass_depends_on_the_block_alone() -> None:
    model, sizes = tiny(), []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    predict = predictor(model, batch_size=4)
    predict(block_of([0, 1], ["", ""], num_views=3))
    predict(block_of([0, -1], ["broken", "fills the last block"], num_views=3))
    assert sizes == [4, 2, 4, 2]


def test_views_are_averaged_by_name() -> None:
    logits = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    seen = torch.ones(1, 2, dtype=torch.bool)
    expected = (logits[0, 0].softmax(0) + logits[0, 1].softmax(0)) / 2
    torch.testing.assert_close(average_views(logits, seen, "softmax")[0], expected)
    expected = torch.tensor([1.0, 2.0]).softmax(0)
    torch.testing.assert_close(average_views(logits, seen, "logits")[0], expected)


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_a_missing_view_weighs_nothing_and_is_counted(average: Average) -> None:
    nan = 155.0
    predictions = recorded(
        [
            [[3, 0, 0, 0], [nan, 0, 0, 0], [3, 0, 0, 0]],
            [[0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]],
            [[nan, 0, 0, 0], [0, nan, 0, 0], [0, 0, 0, nan]],
        ],
        average=average,
    )
    expected = torch.tensor([3.0, 0.0, 0.0, 0.0]).softmax(0)
    torch.testing.assert_close(predictions.probabilities[0], expected, rtol=1e-4, atol=1e-4)
    assert predictions.views_seen.tolist() == [2, 3, 0]
    assert predictions.incomplete == [0]
    assert predictions.refused == {2: "the model's logits are not finite"}
    metrics = score(predictions, classes=CLASSES, num_neurons=3)
    assert metrics["val/num_incomplete"] == 1.0
    assert metrics["val/num_refused"] == 1.0
    assert metrics["val/top1"] == pytest.approx(2 / 3)


def test_refused_videos_count_as_errors() -> None:
    predictions = predict_split(predictor(tiny()), BLOCKS, 5)
    right = Predictions(
        predictions.labels,
        torch.eye(4)[predictions.labels] * (predictions.views_seen > 0)[:, None],
        predictions.views_seen,
        predictions.chosen,
        predictions.refused,
    )
    metrics = score(right, classes=CLASSES, num_neurons=3)
    assert metrics["val/top1"] == pytest.approx(3 / 5)
    assert metrics["val/mean_class_accuracy"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    assert (metrics["val/num_videos"], metrics["val/num_refused"]) == (5.0, 2.0)
    assert {f"dsts/layer{i}/utilization" for i in range(2)} <= metrics.keys()


def test_a_refused_video_stops_the_evaluation_when_asked_to() -> None:
    stopping = predictor(tiny(), refused="stop")
    assert len(stopping(BLOCKS[1])["sample_id"]) == 2
    assert len(stopping(BLOCKS[3])["sample_id"]) == 2
    with pytest.raises(DataError, match=r"broken: .*evaluation.refused=wrong"):
        stopping(BLOCKS[0])


@pytest.mark.parametrize("blocks", [BLOCKS[1:], [*BLOCKS, BLOCKS[0]]])
def test_a_video_missing_or_twice_is_an_error(blocks: list[Mapping[str, np.ndarray]]) -> None:
    with pytest.raises(ClusterError, match="of 5 videos"):
        predict_split(predictor(tiny()), blocks, 5)


def test_a_plain_backbone_chooses_no_neurons() -> None:
    predictions = predict_split(
        predictor(tiny("dsts.enabled=false", "udl.enabled=false")), BLOCKS, 5
    )
    assert predictions.chosen.shape == (5, 1, 0)
    metrics = score(predictions, classes=CLASSES, num_neurons=3)
    assert not any(name.startswith("dsts/") for name in metrics)


def test_diving48_names_bring_attribute_accuracies() -> None:
    names = [f"Back+{i}som+NoTwis+{end}" for i in (15, 25) for end in ("PIKE", "TUCK")]
    metrics = score(predict_split(predictor(tiny()), BLOCKS, 5), classes=names, num_neurons=3)
    assert metrics["val/takeoff_accuracy"] == pytest.approx(3 / 5)


def test_gates_are_measured_by_layer_and_neuron() -> None:
    model = tiny_model(tiny_config())
    assert model.classifier.dsts is not None
    layer = model.classifier.dsts.layers[1]
    assert isinstance(layer, DSTSLayer)
    assert isinstance(layer.gates, Gates)
    layer.gates.gates.data[2] = -1.0
    layer.gates.gates.data[2, 0] = 1.0  # this channel is the temporal operator's
    channels = layer.gates.gates.shape[1]
    metrics = gate_metrics(model)
    assert len(metrics) == 6
    assert metrics["gates/layer1/neuron2_spatial_ratio"] == pytest.approx(1 - 1 / channels)
    assert not gate_metrics(tiny_model(tiny_config("dsts.specialization=conv3d")))
    assert not gate_metrics(tiny_model(tiny_config("dsts.enabled=false")))
    fixed = gate_metrics(tiny_model(tiny_config("dsts.specialization=fixed")))
    assert set(fixed.values()) == {0.5}
