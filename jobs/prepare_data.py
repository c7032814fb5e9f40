"""Prepare data: render a demo data set, index a data set into a manifest, or pack its videos."""

import argparse
import sys
from pathlib import Path

from dsts_ray.config.command_line import local_path
from dsts_ray.errors import DSTSRayError


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    omit = argparse.SUPPRESS  # what is not given keeps the writer's default
    demo = commands.add_parser("demo", help="render clips in a release's exact layout")
    demo.add_argument("--out", type=local_path, required=True, help="folder of the new data set")
    demo.add_argument("--layout", choices=("diving48", "ssv2"), default="diving48")
    demo.add_argument("--naming", choices=("20bn", "qualcomm"), default=omit, help="ssv2 alone")
    for name in ("classes", "train-clips", "validation-clips", "test-clips"):
        note = "ssv2 alone" if name == "validation-clips" else None
        demo.add_argument(f"--num-{name}", type=int, default=omit, metavar="N", help=note)
    demo.add_argument("--size", type=int, default=omit, metavar="PIXELS")
    for name in ("min-frames", "max-frames", "seed", "num-processes"):
        demo.add_argument(f"--{name}", type=int, default=omit, metavar="N")
    index = commands.add_parser("index", help="decode every video once and write a manifest")
    index.add_argument("--format", choices=("diving48", "ssv2", "csv", "folder"), required=True)
    index.add_argument("--root", required=True, help="release folder, list or folder; or its URL")
    index.add_argument("--out", type=local_path, required=True, help="manifest to write (.parquet)")
    index.add_argument("--version", choices=("v1", "v2"), default=omit, help="diving48 alone")
    index.add_argument("--videos", default=omit, metavar="FOLDER", help="of csv's paths")
    index.add_argument("--num-processes", type=int, default=2, metavar="N")
    pack = commands.add_parser("pack", help="write a manifest's videos into Parquet shards")
    pack.add_argument("--manifest", type=local_path, required=True, help="written by index")
    pack.add_argument("--out", type=local_path, required=True, help="folder of the shards")
    pack.add_argument("--shard-bytes", default="512MiB", help="say 512MiB (default)")
    pack.add_argument("--short-side", type=int, default=omit, metavar="PIXELS", help="encode anew")
    note = "encode anew, so many frames from one keyframe to the next (12 with --short-side)"
    pack.add_argument("--keyframe-interval", type=int, default=omit, metavar="FRAMES", help=note)
    arguments = parser.parse_args()
    for name in ("naming", "num_validation_clips"):
        if name in arguments and arguments.layout != "ssv2":
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


def index(*, out: Path, **options: object) -> None:
    """Write a manifest and print what was found."""
    from dsts_ray.data.index import index_dataset
    from dsts_ray.launch.index_report import print_index_report

    report = index_dataset(out=out, **options)  # pyright: ignore[reportArgumentType]
    print_index_report(report, out)


def pack(*, manifest: Path, out: Path, shard_bytes: str, **reencoding: int) -> None:
    """Pack videos into shards and print what was packed."""
    from dsts_ray.data.packing import Packing, Reencoding, parse_bytes
    from dsts_ray.launch.pack import pack, print_pack_report

    how = Reencoding(**reencoding) if reencoding else None
    packing = Packing(shard_bytes=parse_bytes(shard_bytes), reencoding=how)
    print_pack_report(pack(manifest, out, packing))


def main() -> None:
    """Run one command; a user's mistake ends in one line and exit code 2."""
    arguments = vars(parse_arguments())
    try:
        {"demo": write_demo, "index": index, "pack": pack}[arguments.pop("command")](**arguments)
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
