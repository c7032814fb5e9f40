"""How training went: curves of metrics over optimizer steps."""

import math
import re
from collections.abc import Mapping, Sequence

from dsts_ray.explain.drawing import Figure

TRAINING = "Training"
MOST_POINTS = 400
History = Mapping[str, Sequence[tuple[int, float]]]
"""(step, value) by metric."""

_CURVES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("loss", "Losses", ("train/loss", "udl/held_out_loss", "val/loss"), "loss"),
    ("accuracy", "Accuracy", ("val/top1", "val/top5", "val/mean_class_accuracy"), "share"),
)
_GATES = re.compile(r"gates/layer(\d+)/neuron(\d+)_spatial_ratio")


def drawn_metrics(names: Sequence[str]) -> list[str]:
    """Of a run's metrics, those that the figures show."""
    fixed = {name for _, _, keys, _ in _CURVES for name in keys}
    return [
        name
        for name in names
        if name in fixed
        or _GATES.fullmatch(name)
        or name.endswith(("/utilization", "/mutual_information"))
    ]


def course_figures(history: History) -> list[Figure]:
    """Draw losses, accuracies, use of the neurons and drift of the gates, as far as logged."""
    wanted = [*_CURVES]
    for measure in ("utilization", "mutual_information"):
        keys = tuple(name for name in sorted(history) if name.endswith(f"/{measure}"))
        wanted.append((measure, measure.replace("_", " ").capitalize(), keys, measure))
    gates: dict[int, dict[int, str]] = {}
    for name in history:
        if found := _GATES.fullmatch(name):
            gates.setdefault(int(found[1]), {})[int(found[2])] = name
    for layer, by_neuron in sorted(gates.items()):
        keys = tuple(name for _, name in sorted(by_neuron.items()))
        title = f"Gates over training, layer {layer}"
        wanted.append((f"gates_over_training_layer{layer}", title, keys, "spatial share"))
    figures = [_curves(history, *each) for each in wanted]
    return [figure for figure in figures if figure.series]


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most ``MOST_POINTS`` points: means of equally many values, at the last one's step."""
    size = -(-len(points) // MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _curves(history: History, name: str, title: str, keys: Sequence[str], y_title: str) -> Figure:
    curves = {key: dict(thinned(history[key])) for key in keys if history.get(key)}
    steps = sorted({step for curve in curves.values() for step in curve})
    longest = max((len(history[key]) for key in curves), default=0)
    averaged = f" Of {longest} steps, means are drawn." if longest > MOST_POINTS else ""
    return Figure(
        name=f"course_{name}",
        section=TRAINING,
        title=title,
        note=f"By optimizer step, from MLflow.{averaged}",
        kind="lines",
        x=steps,
        series=[
            (
                key,
                [
                    value if math.isfinite(value := curve.get(step, math.nan)) else None
                    for step in steps
                ],
            )
            for key, curve in curves.items()
        ],
        x_title="optimizer step",
        y_title=y_title,
    )
