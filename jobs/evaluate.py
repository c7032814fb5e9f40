"""Evaluate a registered model or a checkpoint folder.

python jobs/evaluate.py --model models:/dsts_ray@champion
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, evaluate, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--model",
        required=True,
        help="models:/NAME@ALIAS, models:/NAME/VERSION or a checkpoint folder",
    )
    parser.add_argument(
        "--data", type=Path, help="manifest (default: what the model was trained on)"
    )
    parser.add_argument(
        "--split", help="split of the manifest (default: the model's validation split)"
    )
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    arguments = parser.parse_args()
    try:
        from rich.console import Console  # the imports below take seconds that --help does not need
        from rich.table import Table

        from dsts_ray.launch.evaluator import evaluate

        result = evaluate(
            arguments.model, uri=arguments.tracking_uri, data=arguments.data, split=arguments.split
        )
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    version = f" (version {result.model.version})" if result.model.version else ""
    table = Table(
        title=f"{arguments.model}{version} on {result.split}, one clip, centre crop",
        show_header=False,
    )
    for name, value in result.metrics.items():
        table.add_row(
            name,
            f"{value:.6f}" if name not in ("val/num_videos", "val/num_refused") else f"{value:.0f}",
        )
    console.print(table)
    console.print(f"data {result.manifest}", soft_wrap=True, highlight=False)
    for video_id, reason in result.refused:
        console.print(f"refused {video_id}: {reason}", soft_wrap=True, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
