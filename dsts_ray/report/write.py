"""A report's files, all of them or none."""

import base64
import shutil
import tempfile
from pathlib import Path

from dsts_ray.report.figures import draw_figures
from dsts_ray.report.tables import Table, to_csv, to_html, to_markdown

MARKDOWN, CSV, HTML = "report.md", "report.csv", "report.html"


def write_sweep_report(table: Table, folder: Path) -> None:
    """Write Markdown, CSV, HTML and figures into a folder, in the place of an earlier report."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw_figures(table)
    files = {caption: f"figure{number}.png" for number, caption in enumerate(pictures, start=1)}
    encoded = {caption: base64.b64encode(png).decode() for caption, png in pictures.items()}
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        written = Path(temporary) / folder.name
        written.mkdir()
        (written / MARKDOWN).write_text(to_markdown(table, files), encoding="utf-8")
        (written / CSV).write_text(to_csv(table), encoding="utf-8")
        (written / HTML).write_text(to_html(table, encoded), encoding="utf-8")
        for caption, file in files.items():
            (written / file).write_bytes(pictures[caption])
        shutil.rmtree(folder, ignore_errors=True)
        written.rename(folder)
