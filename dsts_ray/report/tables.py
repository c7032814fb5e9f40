"""A sweep's table: ours beside the paper's, and the difference to the baseline."""

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsts_ray.config.sweep import MEASURES
from dsts_ray.metrics.paired import Difference, difference_over_seeds, difference_over_videos
from dsts_ray.report.record import FINISHED
from dsts_ray.report.results import Recognized, RunResult, SweepResults

_LABELS = {
    "val/top1": ("top-1, %", 100.0, 1),
    "val/top5": ("top-5, %", 100.0, 1),
    "val/mean_class_accuracy": ("class-wise, %", 100.0, 1),
    "num_parameters": ("parameters, M", 1e-6, 2),
    "wall_s": ("training, s", 1.0, 0),
    "time/inference_view_s": ("inference, ms a view", 1000.0, 2),
}
_CSV_COLUMNS = (
    *("row", "measure", "mean", "standard_deviation", "seeds", "paper", "baseline"),
    *("difference", "low", "high", "drawn", "notes"),
)
_RECOGNIZED_WITHIN = {"val/top1": 1, "val/top5": 5, "val/mean_class_accuracy": 1}


@dataclass(frozen=True)
class Cell:
    """One measure of a row.

    Attributes:
        values: By seed, of the finished runs.
        paper: The paper's number, None where it has none.
    """

    values: dict[int, float]
    paper: float | None

    @property
    def mean(self) -> float:
        """Over seeds; NaN without one."""
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; NaN below two."""
        return (
            float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan
        )


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: Of the sweep's row.
        cells: By measure.
        baseline: Row it is compared with, None for a baseline.
        difference: To that, in the sweep's metric; None where either has no finished run.
        paper_difference: The same in the paper's numbers.
        notes: What became of runs that did not finish.
    """

    name: str
    cells: dict[str, Cell]
    baseline: str | None
    difference: Difference | None
    paper_difference: float | None
    notes: list[str]


@dataclass(frozen=True)
class Table:
    """A sweep's table.

    Attributes:
        results: It is made of.
        measures: Shown, in their order.
        rows: In the sweep's order.
    """

    results: SweepResults
    measures: list[str]
    rows: list[Row]


def build_table(results: SweepResults) -> Table:
    """Average over seeds and compare with the baseline."""
    rows = [_row(results, name) for name in results.rows]
    measures = [
        measure
        for measure in MEASURES
        if any(row.cells[measure].paper is not None for row in rows)
        or (measure != "val/top5" and any(row.cells[measure].values for row in rows))
    ]
    return Table(results, measures, rows)


def to_markdown(table: Table, figures: dict[str, str]) -> str:
    """Write title, table, how to read it, and links to figures (file by caption)."""
    headings, lines = _grid(table)
    record = table.results.record
    text = [f"# {record.title}", "", _about(table), ""]
    text += ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    text += ["", *(f"- {line}" for line in _remarks(table)), ""]
    text += [f"![{caption}]({file})" for caption, file in figures.items()]
    return "\n".join(text) + "\n"


def to_html(table: Table, figures: dict[str, str]) -> str:
    """Write one page that needs no other file.

    Args:
        table: The table.
        figures: Base64 of PNG files by caption.
    """
    headings, lines = _grid(table)
    escape = html.escape
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    remarks = "".join(f"<li>{escape(line)}</li>" for line in _remarks(table))
    pictures = "".join(
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, data in figures.items()
    )
    title = escape(table.results.record.title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font-family:sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border:1px solid #bbb;padding:.3em .6em;text-align:right}"
        "td:first-child,th:first-child{text-align:left}img{max-width:100%}</style></head>"
        f"<body><h1>{title}</h1><p>{escape(_about(table))}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><ul>{remarks}</ul>{pictures}</body></html>\n"
    )


def to_csv(table: Table) -> str:
    """Write a line for every row and measure, unrounded, in the units of the metrics."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for row in table.rows:
        for measure in table.measures:
            cell = row.cells[measure]
            compared = row.difference if measure == table.results.record.metric else None
            writer.writerow(
                [row.name, measure, _raw(cell.mean), _raw(cell.spread), len(cell.values)]
                + [_raw(cell.paper), row.baseline or ""]
                + [_raw(part) for part in (compared[:3] if compared else (None, None, None))]
                + [compared.drawn if compared else "", "; ".join(row.notes)]
            )
    return out.getvalue()


def _row(results: SweepResults, name: str) -> Row:
    record, runs = results.record, results.of_row(name)
    baseline, numbers = record.baselines.get(name), record.paper.get(name, {})
    cells = {
        measure: Cell(
            {seed: run.values[measure] for seed, run in runs.items() if measure in run.values},
            numbers.get(measure),
        )
        for measure in MEASURES
    }
    theirs = record.paper.get(baseline, {}) if baseline else {}
    both = record.metric in numbers and record.metric in theirs
    return Row(
        name,
        cells,
        baseline,
        compare(runs, results.of_row(baseline), record.metric) if baseline else None,
        numbers[record.metric] - theirs[record.metric] if both else None,
        [
            f"seed {seed} {run.outcome}{': ' + run.reason if run.reason else ''}"
            for seed, run in runs.items()
            if run.outcome != FINISHED
        ],
    )


def compare(
    ours: dict[int, RunResult], theirs: dict[int, RunResult], metric: str
) -> Difference | None:
    """Compare two rows over the seeds that both have finished; None without one.

    Paired over seeds and videos where all of these runs logged what they predicted of the same
    videos, else over seeds alone.
    """
    seeds = [s for s in ours if s in theirs and metric in ours[s].values.keys() & theirs[s].values]
    if not seeds:
        return None
    pairs = [(ours[seed].recognized, theirs[seed].recognized) for seed in seeds]
    known = [found for pair in pairs for found in pair if found is not None]
    if len(known) < 2 * len(seeds) or len({found.video_ids for found in known}) > 1:
        values = ([run[s].values[metric] for s in seeds] for run in (ours, theirs))
        return difference_over_seeds(*map(np.array, values))
    return compare_recognized(known[::2], known[1::2], metric)


def compare_recognized(
    ours: Sequence[Recognized], theirs: Sequence[Recognized], metric: str
) -> Difference:
    """Compare runs, one a seed, over the same videos in the same order."""
    within = _RECOGNIZED_WITHIN[metric]
    one, other = (
        np.stack([found.ranks < within for found in side]).astype(float) for side in (ours, theirs)
    )
    by_class = ours[0].labels if metric == "val/mean_class_accuracy" else None
    return difference_over_videos(one, other, classes=by_class)


def _grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as text."""
    metric = table.results.record.metric
    compared = any(row.baseline for row in table.rows)
    headings = ["row"]
    for measure in table.measures:
        headings.append(_LABELS[measure][0])
        if _in_paper(table, measure):
            headings.append("paper")
        if measure == metric and compared:
            headings += ["difference to baseline [95 %]", "paper's"]
    lines = []
    for row in table.rows:
        line = [row.name]
        for measure in table.measures:
            cell = row.cells[measure]
            line.append(_ours(measure, cell))
            if _in_paper(table, measure):
                line.append("" if cell.paper is None else _number(measure, cell.paper))
            if measure == metric and compared:
                line += [_told(row, metric), _signed(metric, row.paper_difference)]
        lines.append([*line, "; ".join(row.notes)])
    return [*headings, "not finished"], lines


def _in_paper(table: Table, measure: str) -> bool:
    return any(row.cells[measure].paper is not None for row in table.rows)


def _ours(measure: str, cell: Cell) -> str:
    if not cell.values:
        return "missing"
    spread = "" if math.isnan(cell.spread) else f" ± {_number(measure, cell.spread)}"
    return _number(measure, cell.mean) + spread


def _told(row: Row, metric: str) -> str:
    if row.baseline is None:
        return "baseline"
    if row.difference is None:
        return "missing"
    if math.isnan(row.difference.low):
        return f"{_signed(metric, row.difference.mean)} (no interval)"
    low, high = (_signed(metric, end) for end in row.difference[1:3])
    undecided = "" if row.difference.is_decided else ", undecided"
    return f"{_signed(metric, row.difference.mean)} [{low}, {high}]{undecided}"


def _number(measure: str, value: float) -> str:
    _, scale, digits = _LABELS[measure]
    return f"{value * scale:.{digits}f}"


def _signed(measure: str, value: float | None) -> str:
    _, scale, digits = _LABELS[measure]
    return "" if value is None else f"{value * scale:+.{digits}f}"


def _raw(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))


def _about(table: Table) -> str:
    record = table.results.record
    changed = f", with {' '.join(record.overrides)}" if record.overrides else ""
    source = f" The paper's numbers: {record.source}." if record.source else ""
    return f"Sweep {table.results.run_name}, preset {record.preset}{changed}.{source}"


def _remarks(table: Table) -> list[str]:
    """How the numbers came about."""
    runs = list(table.results.runs.values())
    finished = sum(run.outcome == FINISHED for run in runs)
    remarks = [
        f"{finished} of {len(runs)} runs finished; values are those of a run's last evaluation",
        "mean ± standard deviation over seeds; no spread where there is one seed",
        "parameters are those of the trained model, without TPN's auxiliary head",
        "times are of the machine that trained, inference without decoding",
    ]
    drawn = sorted({row.difference.drawn for row in table.rows if row.difference})
    if drawn:
        remarks.append(
            f"differences: paired bootstrap, drawn with replacement: {', '.join(drawn)}; an "
            "interval that holds 0 is undecided"
        )
    return remarks
