"""What an evaluation says: a table for a person, a JSON file for a program."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dsts_ray.metrics.bootstrap import NUM_RESAMPLES, SEED, Interval, bootstrap_intervals
from dsts_ray.metrics.confusion import confusion_matrix
from dsts_ray.metrics.recognition import predicted_classes
from dsts_ray.train.evaluate import score
from dsts_ray.train.predictions import EvaluationSetup, SavedPredictions

_COUNTS = ("val/num_videos", "val/num_refused", "val/num_incomplete")


@dataclass(frozen=True)
class ClassRow:
    """One class of the split.

    Attributes:
        name: Of the class.
        num_videos: With this label.
        num_correct: Of these, recognized.
        num_predicted: Videos taken for this class.
        accuracy: Share recognized, None for a class without videos.
    """

    name: str
    num_videos: int
    num_correct: int
    num_predicted: int
    accuracy: float | None


@dataclass(frozen=True)
class EvaluationReport:
    """Scores of a split.

    Attributes:
        setup: What they hold for.
        metrics: Under the names of the design.
        intervals: Bootstrap 95 % intervals of some.
        classes: One row a class.
        confusion: Videos by true class and predicted class, refused ones left out.
        refused: Video and reason.
        incomplete: Videos predicted from fewer views than the protocol's.
    """

    setup: EvaluationSetup
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    classes: list[ClassRow]
    confusion: list[list[int]]
    refused: list[tuple[str, str]]
    incomplete: list[str]


def report_on(saved: SavedPredictions) -> EvaluationReport:
    """Score predictions; needs no model."""
    rows = saved.predictions
    intervals = bootstrap_intervals(rows.probabilities, rows.labels)
    predicted = predicted_classes(rows.probabilities)
    confusion = confusion_matrix(predicted, rows.labels, len(saved.classes))
    counts = rows.labels.bincount(minlength=len(saved.classes)).tolist()
    hits = confusion.diagonal().tolist()
    taken = confusion.sum(0).tolist()
    return EvaluationReport(
        setup=saved.setup,
        metrics=score(rows, classes=saved.classes, num_neurons=saved.num_neurons),
        intervals={f"val/{name}": interval for name, interval in intervals.items()},
        classes=[
            ClassRow(name, count, hit, num, hit / count if count else None)
            for name, count, hit, num in zip(saved.classes, counts, hits, taken, strict=True)
        ],
        confusion=confusion.tolist(),
        refused=[(saved.video_ids[row], reason) for row, reason in sorted(rows.refused.items())],
        incomplete=[saved.video_ids[row] for row in rows.incomplete],
    )


def write_report(report: EvaluationReport, path: Path) -> None:
    """Write everything as JSON: ``setup``, ``metrics``, ``intervals``, ``classes`` and so on.

    The file's folder is made where there is none.
    """
    content: dict[str, Any] = asdict(report)
    content["bootstrap"] = {"num_resamples": NUM_RESAMPLES, "seed": SEED}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=2))
    temporary.replace(path)


def print_report(report: EvaluationReport, console: Console, *, per_class: bool) -> None:
    """Print what was evaluated, the metrics, classes if wanted, and what was left out."""
    say = lambda text: console.print(Text(text), soft_wrap=True)  # noqa: E731
    say(f"{report.setup.model} on {report.setup}")
    table = Table()
    for column in ("metric", "value", f"95 % bootstrap ({NUM_RESAMPLES} draws, seed {SEED})"):
        table.add_column(column)
    for name, value in report.metrics.items():
        interval = report.intervals.get(name)
        table.add_row(
            name,
            f"{value:.0f}" if name in _COUNTS else f"{value:.6f}",
            f"{interval.low:.4f} to {interval.high:.4f}" if interval else "",
        )
    console.print(table)
    if per_class:
        console.print(_class_table(report.classes))
    for video_id, reason in report.refused:
        say(f"refused, counted as wrong: {video_id}: {reason}")
    for video_id in report.incomplete:
        say(f"averaged over fewer views than {report.setup.protocol}: {video_id}")


def _class_table(rows: list[ClassRow]) -> Table:
    table = Table("class", "videos", "correct", "accuracy", "taken for it")
    for row in rows:
        accuracy = "none in the split" if row.accuracy is None else f"{row.accuracy:.4f}"
        counts = map(str, (row.num_videos, row.num_correct))
        table.add_row(Text(row.name), *counts, accuracy, str(row.num_predicted))
    return table
