"""What a person reads before an alias moves: every version, and the two that are compared."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dsts_ray.launch.promote import Verdict

_TAGS = ("protocol", "split", "num_videos", "manifest_digest")


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print each evaluation of the versions, and how the candidate compares with the champion."""
    table = Table(title=escape(f"models:/{verdict.name}"))
    for heading in ("version", "aliases", verdict.metric, *_TAGS):
        table.add_column(heading)
    for version in verdict.versions:
        mark = " (candidate)" if version is verdict.candidate else ""
        value = version.tags.get(verdict.metric)
        table.add_row(
            version.number + mark,
            ", ".join(version.aliases),
            f"{float(value):.4f}" if value else "",
            *(version.tags.get(tag, "") for tag in _TAGS),
        )
    console.print(table, markup=False)
    if found := verdict.difference:
        console.print(
            f"candidate less champion: {100 * found.mean:+.2f} points "
            f"({100 * found.low:+.2f} to {100 * found.high:+.2f}, paired bootstrap over "
            f"{found.drawn})",
            soft_wrap=True,
            highlight=False,
        )
