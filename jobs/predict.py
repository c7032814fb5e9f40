"""Classify videos with a registered model or a checkpoint folder.

python jobs/predict.py --model models:/dsts_ray@champion VIDEO...
python jobs/predict.py --model models:/dsts_ray@champion FOLDER s3://BUCKET/FOLDER --out predicted
python jobs/predict.py --model models:/dsts_ray@champion my.parquet --split test --out predicted
python jobs/predict.py --model models:/dsts_ray@champion LONG.mp4 --window 4 --stride 2 --out found

Without --out, a few videos are predicted without Ray and printed. With it, any number are on
Ray, into FOLDER/predictions.parquet and FOLDER/refused.parquet; killed, the same command goes on.
"""

import argparse
import sys

from dsts_ray.config.command_line import local_path
from dsts_ray.errors import DSTSRayError


def parse() -> argparse.Namespace:
    """Parse the command line."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
    )
    parser.add_argument("--top", type=int, default=5, help="classes per video (default: 5)")
    parser.add_argument("--out", type=local_path, metavar="FOLDER", help="Parquet files, by Ray")
    parser.add_argument("--window", type=float, metavar="S", help="slide a window of S seconds")
    parser.add_argument("--stride", type=float, metavar="S", help="so far (default: half a window)")
    parser.add_argument("--split", help="split of manifests (default: all of them)")
    parser.add_argument("--num-workers", type=int, default=1, help="copies of the model")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="over the model's configuration, as evaluation.protocol=2x3 or data.num_decoders=8",
    )
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    what = "files, folders, globs, manifests (.parquet), URLs of files and folders"
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help=what)
    arguments = parser.parse_args()
    windows = arguments.window is not None
    if not arguments.out and (windows or arguments.num_workers != 1):
        parser.error("--window, --num-workers: only with --out FOLDER")
    if arguments.stride is not None and not windows:
        parser.error("--stride: only with --window")
    return arguments


def main() -> int:
    """Parse, predict, print; 1 if a video that is printed could not be read."""
    arguments = parse()
    try:
        from rich.console import Console  # the imports below take seconds that --help does not need

        from dsts_ray.data.windows import sliding_windows
        from dsts_ray.launch.home import output_path
        from dsts_ray.launch.predict import predict_all, predict_few, prediction_task
        from dsts_ray.launch.prediction_table import print_counts, print_prediction

        sliding = sliding_windows(arguments.window, arguments.stride)
        task = prediction_task(
            arguments.model,
            arguments.videos,
            uri=arguments.tracking_uri,
            split=arguments.split,
            top_k=arguments.top,
            overrides=arguments.set,
        )
        console = Console()
        if arguments.out:
            out = output_path(arguments.out)
            counts = predict_all(task, out, sliding=sliding, num_workers=arguments.num_workers)
            print_counts(counts, out, console)
            return 0
        unread = 0
        for row, prediction in predict_few(task):
            print_prediction(row, prediction, console)
            unread += prediction.error is not None
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(unread > 0)


if __name__ == "__main__":
    sys.exit(main())
