"""What a page shows of predictions written by hand."""

import math

import pytest

from dsts_ray.errors import DataError
from dsts_ray.explain.course import MOST_POINTS, thinned
from dsts_ray.explain.drawing import Explanation, Figure, Table
from dsts_ray.explain.values import explain_predictions
from tests.support.explanation import BASELINE, CLASSES, HISTORY, PREDICTED, SPATIAL_RATIOS
from tests.support.explanation import predictions as written


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    order = (5, 4, 3, 2, 1, 0)
    return explain_predictions(
        written(PREDICTED),
        spatial_ratios=SPATIAL_RATIOS,
        history=HISTORY,
        baseline=written(BASELINE, model="models:/tpn/2", order=order),
    )


def figure(explanation: Explanation, name: str) -> Figure:
    return next(found for found in explanation.figures if found.name == name)


def table(explanation: Explanation, name: str) -> Table:
    return next(found for found in explanation.tables if found.name == name)


def test_gates_give_their_channels_to_two_operators(explanation: Explanation) -> None:
    second = figure(explanation, "gates_layer1")
    assert second.series == [("spatial", [0.0, 0.75, 0.125]), ("temporal", [1.0, 0.25, 0.875])]


def test_neurons_share_the_views_of_a_class_and_of_an_attribute(explanation: Explanation) -> None:
    first = figure(explanation, "classes_layer0")
    assert list(first.x) == list(CLASSES)
    assert first.series == [
        ("0", [1.0, 0.25, 0.0]),
        ("1", [0.0, 0.75, 0.0]),
        ("2", [0.0, 0.0, 1.0]),
    ]
    attributes = figure(explanation, "attributes_layer0")
    column = list(attributes.x).index("takeoff Back")
    assert [values[column] for _, values in attributes.series] == [5 / 8, 3 / 8, 0.0]


def test_paths_and_activations_count_videos(explanation: Explanation) -> None:
    """Of a tie the lower neuron counts; a refused video has no path."""
    assert explanation.activations == [[3, 1, 1], [2, 2, 1]]
    assert figure(explanation, "paths_layer0").series == [
        ("0", [0, 2, 1]),
        ("1", [1, 0, 0]),
        ("2", [1, 0, 0]),
    ]


def test_information_is_the_metric_beside_chance(explanation: Explanation) -> None:
    for layer, row in enumerate(table(explanation, "information").rows):
        name, utilization, information, chance, high, entropy = row
        assert name == f"layer {layer}"
        assert utilization == pytest.approx(explanation.metrics[f"dsts/layer{layer}/utilization"])
        metric = explanation.metrics[f"dsts/layer{layer}/mutual_information"]
        assert information == pytest.approx(metric)
        assert isinstance(chance, float)
        assert isinstance(high, float)
        assert 0 < chance <= high <= math.log(3)
        assert entropy == pytest.approx(0.9650, abs=1e-4)  # of 4, 4 and 1 views


def test_confusions_and_classes(explanation: Explanation) -> None:
    assert [row for _, row in figure(explanation, "confusion").series] == [
        [1, 1, 0],
        [1, 1, 0],
        [0, 0, 1],
    ]
    name, videos, correct, accuracy, low, high, taken, baseline = table(
        explanation, "classes"
    ).rows[0]
    assert (name, videos, correct, accuracy, taken, baseline) == (CLASSES[0], 2, 1, 0.5, 2, 1)
    assert (low, high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_pairs_that_the_model_repairs_and_breaks(explanation: Explanation) -> None:
    """Video 0 is repaired, video 1 broken, video 3 wrong in both, video 4 repaired."""
    back, other, dive = CLASSES
    assert [list(row) for row in table(explanation, "pairs").rows] == [
        [back, other, 1, 1, 1, 1],
        [other, back, 1, 1, 0, 0],
        [dive, back, 0, 1, 1, 0],
    ]


def test_a_class_without_videos_has_no_accuracy_and_no_neurons() -> None:
    alone = explain_predictions(
        written(PREDICTED, classes=("a", "b", "c")), spatial_ratios=[], history={}
    )
    assert not [found for found in alone.figures if found.name.startswith(("gates", "attributes"))]
    assert alone.baseline == ""
    assert table(alone, "pairs").columns == ["true class", "taken for", "videos"]


def test_another_models_videos_or_labels_are_refused() -> None:
    ours, theirs = written(PREDICTED), written(BASELINE, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="not the same; give --data and --split"):
        explain_predictions(ours, spatial_ratios=[], history={}, baseline=theirs)


def test_curves_are_drawn_as_far_as_they_are_finite(explanation: Explanation) -> None:
    accuracy = figure(explanation, "course_accuracy")
    assert (list(accuracy.x), accuracy.series) == ([499, 999], [("val/top1", [0.25, 0.5])])
    losses = figure(explanation, "course_loss")
    assert "Of 1000 steps, means are drawn" in losses.note
    curves = dict(losses.series)
    drawn = [value for value in curves["train/loss"] if value is not None]
    assert len(drawn) == 334
    assert drawn[0] == pytest.approx(3.0 - 0.001)
    assert [value for value in curves["val/loss"] if value is not None] == [1.5]
    gates = figure(explanation, "course_gates_over_training_layer0")
    assert [values for _, values in gates.series] == [[0.5, 0.25], [0.5, 0.5]]


def test_thinned_points_are_means_at_the_last_step() -> None:
    points = [(step, float(step)) for step in range(3 * MOST_POINTS)]
    assert thinned(points)[:2] == [(2, 1.0), (5, 4.0)]
    assert thinned(points[:5]) == points[:5]
    assert thinned([]) == []


def test_clips_cover_neurons_and_classes_and_leave_out_refused_videos(
    explanation: Explanation,
) -> None:
    assert [clip.row for clip in explanation.clips] == [0, 1, 2, 3, 4]
    first = explanation.clips[0]
    assert (first.label, first.predicted, list(first.path)) == (0, 0, [0, 2])
    assert math.isclose(first.probability, 0.8, rel_tol=1e-6)
