"""Figures and key frames as PNG files, of the same values and pictures as the page's."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from PIL import Image

from dsts_ray.explain.drawing import Clip, Figure

_LONGEST_LABEL = 20
_INCH_A_ROW = 0.28
_INCH_A_STRIP = 1.6


def draw_png(figure: Figure) -> bytes:
    """Draw a figure."""
    heat = figure.kind == "heat"
    wide = max(6.0, 2.5 + _INCH_A_ROW * len(figure.x)) if heat else 8.0
    high = max(3.0, 2.2 + _INCH_A_ROW * len(figure.series)) if heat else 4.0
    canvas = Canvas(figsize=(min(wide, 40.0), min(high, 40.0)), layout="constrained")
    axes = canvas.add_subplot()
    draw = {"heat": _heat, "lines": _lines, "stacked": _bars, "grouped": _bars}[figure.kind]
    draw(canvas, axes, figure)
    axes.set_title(_text(figure.title))
    axes.set_xlabel(_text(figure.x_title))
    axes.set_ylabel(_text(figure.y_title))
    out = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(out)
    return out.getvalue()


def draw_strips(clips: Sequence[Clip], strips: Sequence[bytes], classes: Sequence[str]) -> bytes:
    """Draw key-frame strips below each other, each with its labels and its path.

    Args:
        clips: One or more.
        strips: Picture file of each.
        classes: Names.
    """
    canvas = Canvas(figsize=(8.0, _INCH_A_STRIP * len(clips)), layout="constrained")
    rows = canvas.subplots(len(clips), squeeze=False)[:, 0]
    for axes, clip, strip in zip(rows, clips, strips, strict=True):
        axes.imshow(np.asarray(Image.open(io.BytesIO(strip))))
        axes.set_axis_off()
        right = "recognized" if clip.predicted == clip.label else f"as {classes[clip.predicted]}"
        path = " → ".join(map(str, clip.path))
        told = f"{classes[clip.label]}, {right} ({clip.probability:.2f}), neurons {path}"
        axes.set_title(_text(told), loc="left", fontsize=8)
    out = io.BytesIO()
    FigureCanvasAgg(canvas).print_png(out)
    return out.getvalue()


def _heat(canvas: Canvas, axes: Axes, figure: Figure) -> None:
    values = np.array([list(row) for _, row in figure.series], dtype=float)
    image = axes.imshow(values, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    axes.set_xticks(range(len(figure.x)), [_label(name) for name in figure.x], rotation=90)
    axes.set_yticks(range(len(figure.series)), [_label(name) for name, _ in figure.series])
    canvas.colorbar(image)


def _bars(canvas: Canvas, axes: Axes, figure: Figure) -> None:
    places, below = np.arange(len(figure.x)), np.zeros(len(figure.x))
    stacked, count = figure.kind == "stacked", len(figure.series)
    for index, (name, values) in enumerate(figure.series):
        heights = np.array(list(values), dtype=float)
        left = places if stacked else places + (index - (count - 1) / 2) * 0.8 / count
        axes.bar(left, heights, 0.8 if stacked else 0.8 / count, bottom=below, label=_text(name))
        below = below + np.nan_to_num(heights) if stacked else below
    axes.set_xticks(places, [_label(name) for name in figure.x])
    canvas.legend(loc="outside upper right", ncols=2, frameon=False)


def _lines(canvas: Canvas, axes: Axes, figure: Figure) -> None:
    for name, values in figure.series:
        points = [(x, y) for x, y in zip(figure.x, values, strict=True) if y is not None]
        if points:
            axes.plot(*zip(*points, strict=True), ".-", markersize=3, label=_text(name))
    axes.grid(alpha=0.3)
    if axes.lines:
        canvas.legend(loc="outside right upper", frameon=False)


def _label(name: str | int) -> str:
    """Names often differ in their end alone, so the middle is left out."""
    text = str(name)
    return _text(text if len(text) <= _LONGEST_LABEL else f"{text[:9]}…{text[-10:]}")


def _text(text: str) -> str:
    """Text as it is: matplotlib reads formulas between dollar signs."""
    return text.replace("$", r"\$")
