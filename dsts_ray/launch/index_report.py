"""What an indexing found, for the console."""

from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from dsts_ray.data.index import IndexReport, index_files

_NUM_SHOWN = 10


def print_index_report(report: IndexReport, out: Path) -> None:
    """Print the counts, the first refused videos of each check with their reason, and warnings."""
    console = Console()
    table = Table("split", "videos", "classes", "fewest", "most", title=str(out))
    for split, counts in report.counts.items():
        numbers = (sum(counts.values()), len(counts), min(counts.values()), max(counts.values()))
        table.add_row(split, *map(str, numbers))
    console.print(table)
    for path in report.lists:
        console.print(f"read {path}", markup=False, soft_wrap=True)
    console.print(f"{report.num_videos} videos indexed, {report.num_refused} refused")
    files = index_files(out)
    for check, number in report.refused_by_check.items():
        console.print(f"{check}: {number} refused")
        rows = pq.read_table(files.refused, filters=[("check", "==", check)]).slice(0, _NUM_SHOWN)
        for row in rows.to_pylist():
            line = f"  refused {row['path']}: {row['reason']}"
            console.print(line, markup=False, soft_wrap=True)
        if number > _NUM_SHOWN:
            console.print(f"  and {number - _NUM_SHOWN} more, listed in {files.refused}")
    for finding in report.warnings:
        shown = ", ".join(finding.examples) + (", ..." if finding.omitted else "")
        line = f"warning: {finding.number} {finding.text}: {shown}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"the counts lie in {files.report}", soft_wrap=True)
    print_next_step(out)


def print_next_step(manifest: Path) -> None:
    """Say how to train on a manifest."""
    job = f"python jobs/train.py --preset PRESET data.manifest={manifest} data.val_split=SPLIT"
    print(f"train on them with\n  {job}")
