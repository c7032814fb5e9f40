"""From predictions, gates and a run's metrics to everything that a page shows."""

import math
from collections.abc import Sequence

from torch import Tensor

from dsts_ray.explain.clips import choose_clips
from dsts_ray.explain.course import History, course_figures
from dsts_ray.explain.drawing import Explanation, Figure, Table
from dsts_ray.explain.recognition import (
    RECOGNITION,
    class_table,
    confusion_figure,
    pair_table,
    predictions_of,
)
from dsts_ray.explain.routes import (
    activation_counts,
    class_figures,
    gate_figures,
    information_table,
    path_figures,
    use_figure,
)
from dsts_ray.metrics.recognition import predicted_classes
from dsts_ray.train.evaluate import score
from dsts_ray.train.predictions import SavedPredictions


def explain_predictions(
    saved: SavedPredictions,
    *,
    spatial_ratios: Sequence[Sequence[float]],
    history: History,
    baseline: SavedPredictions | None = None,
) -> Explanation:
    """Compute everything that a page shows.

    Args:
        saved: The model's predictions.
        spatial_ratios: Share of channels of the spatial operator, by layer and neuron; empty
            without gates.
        history: Of the run that trained the model; empty where it is not known.
        baseline: Another model's predictions of the same videos.

    Raises:
        DataError: The baseline's classes or videos are others.
    """
    rows = saved.predictions
    predicted, labels = predicted_classes(rows.probabilities), rows.labels
    figures, tables = evaluation_figures(saved, spatial_ratios), list[Table]()
    others = None if baseline is None else predictions_of(baseline, saved)
    counts, answered = _activations(saved)
    paths = counts.argmax(2)
    activations: list[list[int]] = []
    if counts.shape[1] and bool(answered.any()):
        tables.append(information_table(counts[answered], labels[answered]))
        activations = [
            own.bincount(minlength=saved.num_neurons).tolist() for own in paths[answered].T
        ]
    metrics = score(rows, classes=saved.classes, num_neurons=saved.num_neurons)
    tables.append(class_table(predicted, labels, saved.classes, others))
    tables.append(pair_table(predicted, labels, saved.classes, others))
    if rows.refused:
        tables.append(_refused(saved))
    chosen = choose_clips(saved, paths)
    return Explanation(
        model=saved.setup.model,
        setup=str(saved.setup),
        baseline=baseline.setup.model if baseline else "",
        classes=saved.classes,
        activations=activations,
        metrics={name: value if math.isfinite(value) else None for name, value in metrics.items()},
        figures=[*figures, *course_figures(history)],
        tables=tables,
        clips=chosen.clips,
        clips_of_neurons=chosen.of_neurons,
    )


def evaluation_figures(
    saved: SavedPredictions, spatial_ratios: Sequence[Sequence[float]]
) -> list[Figure]:
    """Figures that an evaluation's predictions and the gates suffice for; see above."""
    rows = saved.predictions
    counts, answered = _activations(saved)
    figures = gate_figures(spatial_ratios)
    if counts.shape[1] and bool(answered.any()):
        counts, labels = counts[answered], rows.labels[answered]
        figures.append(use_figure(counts))
        figures += class_figures(counts, labels, saved.classes)
        figures += path_figures(counts.argmax(2), saved.num_neurons)
    predicted = predicted_classes(rows.probabilities)
    return [*figures, confusion_figure(predicted, rows.labels, saved.classes)]


def _activations(saved: SavedPredictions) -> tuple[Tensor, Tensor]:
    """Activations by video, layer and neuron, and which videos have any."""
    counts = activation_counts(saved.predictions, saved.num_neurons)
    return counts, counts.sum(2).gt(0).all(1) & (saved.predictions.views_seen > 0)


def _refused(saved: SavedPredictions) -> Table:
    refused = saved.predictions.refused
    return Table(
        name="refused",
        section=RECOGNITION,
        title="Refused videos",
        note="Videos without a prediction; they count as wrong.",
        columns=["video", "reason"],
        rows=[[saved.video_ids[row], reason] for row, reason in sorted(refused.items())],
    )
