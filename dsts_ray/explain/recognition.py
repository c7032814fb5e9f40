"""Which classes a model takes for which, and what it repairs and breaks against another one."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from dsts_ray.errors import DataError
from dsts_ray.explain.drawing import Cell, Figure, Table
from dsts_ray.metrics.confusion import confusion_matrix
from dsts_ray.metrics.recognition import REFUSED, predicted_classes, wilson_interval
from dsts_ray.train.predictions import SavedPredictions

RECOGNITION = "Recognition"


def predictions_of(saved: SavedPredictions, like: SavedPredictions) -> Int[Tensor, " videos"]:
    """Classes that a model predicts of the videos of another evaluation, in its order.

    Raises:
        DataError: Classes, videos or labels differ.
    """
    if saved.classes != like.classes or set(saved.video_ids) != set(like.video_ids):
        raise DataError(
            f"{saved.setup.model} was evaluated on {len(saved.video_ids)} videos of "
            f"{len(saved.classes)} classes, {like.setup.model} on {len(like.video_ids)} of "
            f"{len(like.classes)}, and these are not the same; give --data and --split of a "
            "manifest whose classes both models have"
        )
    row_of = {video_id: row for row, video_id in enumerate(saved.video_ids)}
    order = [row_of[video_id] for video_id in like.video_ids]
    if not torch.equal(saved.predictions.labels[order], like.predictions.labels):
        raise DataError(f"{saved.setup.model} and {like.setup.model} saw videos of other labels")
    return predicted_classes(saved.predictions.probabilities)[order]


def confusion_figure(
    predicted: Int[Tensor, " videos"], labels: Int[Tensor, " videos"], classes: Sequence[str]
) -> Figure:
    """Videos by true and predicted class."""
    counts = confusion_matrix(predicted, labels, len(classes)).tolist()
    return Figure(
        name="confusion",
        section=RECOGNITION,
        title="Confusion matrix",
        note="Videos by true class (row) and predicted class (column); refused ones left out.",
        kind="heat",
        x=list(classes),
        series=list(zip(classes, counts, strict=True)),
        x_title="predicted class",
        y_title="true class",
    )


def class_table(
    predicted: Int[Tensor, " videos"],
    labels: Int[Tensor, " videos"],
    classes: Sequence[str],
    baseline: Int[Tensor, " videos"] | None,
) -> Table:
    """Counts, accuracy and its interval of each class."""
    columns = ["class", "videos", "correct", "accuracy", "low", "high", "taken for it"]
    rows: list[list[Cell]] = []
    for index, name in enumerate(classes):
        own = labels == index
        count, correct = int(own.sum()), int((predicted[own] == index).sum())
        share = correct / count if count else None
        low, high = wilson_interval(correct / count, count) if count else (None, None)
        rows.append([name, count, correct, share, low, high, int((predicted == index).sum())])
        if baseline is not None:
            rows[-1].append(int((baseline[own] == index).sum()))
    return Table(
        name="classes",
        section=RECOGNITION,
        title="Classes",
        note="Accuracy with its 95 % Wilson interval; a refused video counts as wrong.",
        columns=columns if baseline is None else [*columns, "baseline correct"],
        rows=rows,
    )


def pair_table(
    predicted: Int[Tensor, " videos"],
    labels: Int[Tensor, " videos"],
    classes: Sequence[str],
    baseline: Int[Tensor, " videos"] | None,
) -> Table:
    """Pairs of classes that are confused, the most frequent first."""
    num_classes = len(classes)
    errors = _errors(predicted, labels, num_classes)
    columns = ["true class", "taken for", "videos"]
    note = "Videos of one class that the model takes for another."
    counts = [errors]
    if baseline is not None:
        columns += ["baseline's videos", "repaired", "broken"]
        note += (
            " Repaired: the baseline confuses them, the model recognizes them. Broken: the "
            "baseline recognizes them, the model confuses them."
        )
        repaired = _errors(torch.where(predicted == labels, baseline, REFUSED), labels, num_classes)
        broken = _errors(torch.where(baseline == labels, predicted, REFUSED), labels, num_classes)
        counts += [_errors(baseline, labels, num_classes), repaired, broken]
    pairs = sorted({pair for count in counts for pair in count})
    rows = [
        [classes[true], classes[taken], *(count.get((true, taken), 0) for count in counts)]
        for true, taken in sorted(pairs, key=lambda pair: -errors.get(pair, 0))
    ]
    return Table(
        name="pairs",
        section=RECOGNITION,
        title="Confused pairs",
        note=note,
        columns=columns,
        rows=rows,
    )


def _errors(predicted: Tensor, labels: Tensor, num_classes: int) -> dict[tuple[int, int], int]:
    """Videos by (true class, class they are taken for)."""
    counts = confusion_matrix(predicted, labels, num_classes).fill_diagonal_(0)
    return {(true, taken): int(counts[true, taken]) for true, taken in counts.nonzero().tolist()}
