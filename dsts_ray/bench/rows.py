"""Rows of a bench: what was compared, what came out, what was asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from dsts_ray.bench.compare import Comparison


class Row(NamedTuple):
    """One line of a bench's table.

    Attributes:
        bench: Its name.
        variant: Which of its lines.
        device: ``cpu``, or the GPU's name.
        shapes: What was computed on.
        comparison: Times, memory and agreement of the two ways.
        ratio: The figure that is asked for.
        asked: The bound as text; empty where none is set.
        holds: Whether the bound holds; None without a bound.
        note: What else a reader must know.
    """

    bench: str
    variant: str
    device: str
    shapes: str
    comparison: Comparison
    ratio: float
    asked: str = ""
    holds: bool | None = None
    note: str = ""


def to_json(row: Row) -> dict[str, Any]:
    """Return the row as plain values, the comparison's two ways as ``a`` and ``b``."""
    values = row._asdict()
    comparison: Comparison = values.pop("comparison")
    return values | {
        "a": comparison.a._asdict(),
        "b": comparison.b._asdict(),
        "max_rel_error": comparison.max_rel_error,
    }


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write a list with one object per row."""
    path.write_text(json.dumps([to_json(row) for row in rows], indent=2) + "\n")


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print each row: ratio and bound, then either way's median, range and peak memory."""
    for row in rows:
        verdict = {True: "holds", False: "DOES NOT HOLD", None: "no bound"}[row.holds]
        asked = f", asked {row.asked}: {verdict}" if row.asked else ""
        error = row.comparison.max_rel_error
        table = Table(
            "",
            "what",
            "median s",
            "range s",
            "peak MiB",
            title=f"{row.bench}: {row.variant}\n{row.device}, {row.shapes}",
            caption=f"ratio {row.ratio:.3g}{asked}"
            + ("" if error is None else f"\nlargest relative error {error:.1e}")
            + (f"\n{row.note}" if row.note else ""),
        )
        for name, way in zip("ab", (row.comparison.a, row.comparison.b), strict=True):
            span = f"{way.min_s:.4g} .. {way.max_s:.4g}"
            table.add_row(
                name, way.what, f"{way.median_s:.4g}", span, f"{way.peak_bytes / 2**20:.0f}"
            )
        console.print(table)
