"""What a page can show, as plain data: the JSON file beside the page holds exactly this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["stacked", "grouped", "heat", "lines"]
Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure.

    Attributes:
        name: In the page's addresses and of its file.
        section: Of the page.
        title: Of the figure.
        note: What it shows, in a sentence.
        kind: Bars on top of or beside each other, a heat map with a row a series, or lines.
        x: Names of bars and columns; steps of lines.
        series: Names, each with its values at ``x``, None where there is none. Pairs, as a browser
            would sort an object's names that are numbers.
        x_title: What ``x`` counts.
        y_title: What the values, or a heat map's rows, are.
    """

    name: str
    section: str
    title: str
    note: str
    kind: Kind
    x: Sequence[str | int]
    series: Sequence[tuple[str, Sequence[float | None]]]
    x_title: str
    y_title: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; attributes as of :class:`Figure`."""

    name: str
    section: str
    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video of which the page shows frames.

    Attributes:
        row: Of the split.
        video_id: Of the manifest.
        label: True class.
        predicted: Most probable class.
        probability: Of that class.
        path: Activated neuron of each layer; of several views the most frequent.
    """

    row: int
    video_id: str
    label: int
    predicted: int
    probability: float
    path: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything a page shows but the pictures of the clips.

    Attributes:
        model: Name and version.
        setup: What the predictions hold for.
        baseline: The model compared with; empty without one.
        classes: Names.
        activations: Videos that activate a neuron, by layer and neuron.
        metrics: Of the evaluation.
        figures: In the order of the page.
        tables: In the order of the page.
        clips: That the page shows.
        clips_of_neurons: Places in ``clips`` of those chosen for a neuron, by layer and neuron.
    """

    model: str
    setup: str
    baseline: str
    classes: Sequence[str]
    activations: Sequence[Sequence[int]]
    metrics: Mapping[str, Any]
    figures: Sequence[Figure] = field(default_factory=list)
    tables: Sequence[Table] = field(default_factory=list)
    clips: Sequence[Clip] = field(default_factory=list)
    clips_of_neurons: Sequence[Sequence[Sequence[int]]] = field(default_factory=list)
