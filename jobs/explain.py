"""Show what the neurons of a registered model learned: one HTML page, PNG figures, a JSON file.

python jobs/explain.py --model models:/dsts_ray@champion
python jobs/explain.py --model models:/dsts_ray@champion --baseline models:/tpn@champion
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, explain, print."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
    )
    parser.add_argument("--data", type=Path, help="manifest (default: the model's)")
    parser.add_argument("--split", help="split of the manifest (default: the model's val_split)")
    parser.add_argument("--baseline", metavar="MODEL", help="compare with this model's predictions")
    parser.add_argument("--num-workers", type=int, default=1, help="copies of the model")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="over both models' configuration, as evaluation.protocol=2x3",
    )
    parser.add_argument("--out", type=Path, help="folder (default: explanations/ beside the runs)")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    arguments = parser.parse_args()
    try:
        # seconds that --help does not need
        from dsts_ray.launch.explain import explain, log_explanation

        written = explain(
            arguments.model,
            uri=arguments.tracking_uri,
            data=arguments.data,
            split=arguments.split,
            baseline=arguments.baseline,
            num_workers=arguments.num_workers,
            overrides=arguments.set,
            out=arguments.out,
        )
        print(f"open {written.page}")
        log_explanation(written, arguments.tracking_uri)
        if written.run_id:
            print(f"it is in MLflow, too: artifact {written.artifact} of run {written.run_id}")
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
