"""A sweep's figures: every row's result beside the paper's, and the way there."""

import io
import math

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsts_ray.report.tables import Table

_OURS, _PAPER = "#1f5fa8", "#c05020"


def draw_figures(table: Table) -> dict[str, bytes]:
    """Draw a sweep's figures as PNG files, by caption."""
    metric = table.results.record.metric
    return {
        f"{metric} of every row: seeds, mean, and the paper's": _draw_rows(table),
        f"{metric} by optimizer step, a line for every run": _draw_curves(table),
    }


def _draw_rows(table: Table) -> bytes:
    metric, rows = table.results.record.metric, table.rows
    figure = Figure(figsize=(8, 1.2 + 0.42 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        cell = row.cells[metric]
        values = [100 * value for value in cell.values.values()]
        axes.plot(values, [place] * len(values), ".", color=_OURS, alpha=0.4, markersize=9)
        if values:
            axes.plot([100 * cell.mean], [place], "|", color=_OURS, markersize=18, mew=2.5)
        else:
            axes.annotate("missing", (0.01, place), xycoords=("axes fraction", "data"), va="center")
        if cell.paper is not None:
            axes.plot([100 * cell.paper], [place], "D", mfc="none", color=_PAPER, markersize=8)
    axes.plot([], [], "|", color=_OURS, markersize=12, mew=2.5, label="ours, mean over seeds")
    if any(row.cells[metric].paper is not None for row in rows):
        axes.plot([], [], "D", mfc="none", color=_PAPER, label="paper")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{metric}, %")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return _png(figure)


def _draw_curves(table: Table) -> bytes:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colors = colormaps["viridis"]
    for place, row in enumerate(table.rows):
        color = colors(place / max(1, len(table.rows) - 1))
        label = row.name
        for run in table.results.of_row(row.name).values():
            points = [(step + 1, 100 * value) for step, value in run.curve if math.isfinite(value)]
            if points:
                axes.plot(*zip(*points, strict=True), ".-", color=color, label=label, alpha=0.8)
                label = "_"
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"{table.results.record.metric}, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside right upper", frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
