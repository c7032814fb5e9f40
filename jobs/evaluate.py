"""Evaluate a registered model or a checkpoint folder, score saved predictions, or fuse two.

python jobs/evaluate.py --model models:/dsts_ray@champion
python jobs/evaluate.py --model FOLDER evaluation.protocol=2x3 --save a.parquet
python jobs/evaluate.py --model models:/dsts_ray/7 evaluation.protocol=2x3 --record
python jobs/evaluate.py --score a.parquet
python jobs/evaluate.py --fuse a.parquet b.parquet
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def parse() -> argparse.Namespace:
    """Parse the command line."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder")
    what.add_argument("--score", type=Path, metavar="FILE", help="score saved predictions again")
    what.add_argument("--fuse", type=Path, nargs=2, metavar="FILE", help="average two such files")
    parser.add_argument("--data", type=Path, help="manifest (default: the model's)")
    parser.add_argument("--split", help="split of the manifest (default: the model's val_split)")
    parser.add_argument("--num-workers", type=int, default=1, help="copies of the model")
    parser.add_argument("--save", type=Path, metavar="FILE.parquet", help="save the predictions")
    parser.add_argument("--record", action="store_true", help="for promote.py --protocol, --split")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="write all results")
    parser.add_argument("--per-class", action="store_true", help="print a table of the classes")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    parser.add_argument(
        "overrides",
        metavar="key=value",
        nargs="*",
        help="over the model's configuration: evaluation.*, data.*, scaling.cpus_per_worker",
    )
    arguments = parser.parse_intermixed_args()
    for_models = {"--data": arguments.data, "--split": arguments.split}
    for_models |= {"--num-workers": arguments.num_workers != 1}
    for_models |= {"--record": arguments.record, "--tracking-uri": arguments.tracking_uri}
    for_models |= {"key=value": arguments.overrides}
    unused = [name for name, value in for_models.items() if value]
    if unused and not arguments.model:
        parser.error(f"{', '.join(unused)}: only with --model; predictions are read as they are")
    return arguments


def main() -> int:
    """Parse, evaluate, print."""
    arguments = parse()
    try:
        from rich.console import Console  # the imports below take seconds that --help does not need

        from dsts_ray.launch.evaluation_report import print_report, report_on, write_report
        from dsts_ray.launch.evaluator import evaluate_model
        from dsts_ray.launch.home import output_path
        from dsts_ray.train.predictions import fuse, read_predictions, write_predictions

        if arguments.model:
            saved = evaluate_model(
                arguments.model,
                uri=arguments.tracking_uri,
                data=arguments.data,
                split=arguments.split,
                num_workers=arguments.num_workers,
                overrides=arguments.overrides,
                record=arguments.record,
            )
        elif arguments.score:
            saved = read_predictions(arguments.score)
        else:
            saved = fuse(*map(read_predictions, arguments.fuse))
        report = report_on(saved)
        if arguments.save:
            write_predictions(saved, output_path(arguments.save))
        if arguments.report:
            write_report(report, output_path(arguments.report))
        print_report(report, Console(), per_class=arguments.per_class)
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
