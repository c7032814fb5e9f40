"""Prepare data: render a demo data set, or index a data set into a manifest."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dsts_ray.errors import DSTSRayError

if TYPE_CHECKING:
    from dsts_ray.data.index import IndexReport


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    omit = argparse.SUPPRESS  # what is not given keeps the writer's default
    demo = commands.add_parser("demo", help="render clips in a release's exact layout")
    demo.add_argument("--out", type=Path, required=True, help="folder of the new data set")
    demo.add_argument("--layout", choices=("diving48", "ssv2"), default="diving48")
    demo.add_argument("--naming", choices=("20bn", "qualcomm"), default=omit, help="ssv2 alone")
    for name in ("classes", "train-clips", "validation-clips", "test-clips"):
        note = "ssv2 alone" if name == "validation-clips" else None
        demo.add_argument(f"--num-{name}", type=int, default=omit, metavar="N", help=note)
    demo.add_argument("--size", type=int, default=omit, metavar="PIXELS")
    for name in ("min-frames", "max-frames", "seed", "num-processes"):
        demo.add_argument(f"--{name}", type=int, default=omit, metavar="N")
    index = commands.add_parser("index", help="decode every video once and write a manifest")
    index.add_argument("--format", choices=("diving48", "ssv2", "csv"), required=True)
    index.add_argument("--root", type=Path, required=True, help="release folder, or the csv file")
    index.add_argument("--out", type=Path, required=True, help="manifest to write (.parquet)")
    index.add_argument("--num-processes", type=int, default=2, metavar="N")
    arguments = parser.parse_args()
    if arguments.command == "demo" and arguments.layout == "diving48":
        for name in ("naming", "num_validation_clips"):
            if name in arguments:
                parser.error(f"--{name.replace('_', '-')} needs --layout ssv2")
    return arguments


def write_demo(*, out: Path, layout: str, **options: object) -> None:
    """Render a demo data set and say how to index it."""
    if layout == "ssv2":
        from dsts_ray.data.demo.ssv2 import write_ssv2 as write
    else:
        from dsts_ray.data.demo.diving48 import write_diving48 as write
    write(out, **options)  # pyright: ignore[reportArgumentType]
    print(
        f"wrote a demo data set to {out}; index it with\n  python jobs/prepare_data.py index "
        f"--format {layout} --root {out} --out {out / 'manifest.parquet'}"
    )


def print_report(report: "IndexReport", out: Path) -> None:
    """Print the counts, and every refused file with its reason."""
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "videos", "classes", "fewest", "most", title=str(out))
    for split, counts in report.counts.items():
        numbers = (sum(counts.values()), len(counts), min(counts.values()), max(counts.values()))
        table.add_row(split, *map(str, numbers))
    console = Console()
    console.print(table)
    console.print(f"{report.num_videos} videos indexed, {report.num_refused} refused")
    for video in report.refused:
        console.print(f"refused {video.path}: {video.reason}", markup=False, soft_wrap=True)
    job = f"python jobs/train.py --preset PRESET data.manifest={out} data.val_split=SPLIT"
    print(f"train on them with\n  {job}")


def main() -> None:
    """Run one command; a user's mistake ends in one line and exit code 2."""
    arguments = vars(parse_arguments())
    command = arguments.pop("command")
    try:
        if command == "demo":
            write_demo(**arguments)
        else:
            from dsts_ray.data.index import index_dataset

            print_report(index_dataset(**arguments), arguments["out"])
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
