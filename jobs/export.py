"""Write a registered model as one file for other programs, checked against the model.

python jobs/export.py --model models:/dsts_ray@champion --format onnx --out champion.onnx
python jobs/export.py --model models:/dsts_ray@champion --format torch --out champion.pt2
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, export, print."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", required=True, help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder"
    )
    parser.add_argument("--format", choices=("torch", "onnx"), required=True, help="of the file")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="file to write")
    parser.add_argument("--data", type=Path, help="manifest to check on (default: the model's)")
    parser.add_argument("--split", help="split of the manifest (default: the model's val_split)")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    arguments = parser.parse_args()
    try:
        from dsts_ray.export import FRAMES, LOGITS, NEURONS  # seconds that --help does not need
        from dsts_ray.launch.export import export

        written = export(
            arguments.model,
            uri=arguments.tracking_uri,
            data=arguments.data,
            split=arguments.split,
            format=arguments.format,
            path=arguments.out,
        )
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    frames = " x ".join(map(str, written.frames))
    print(f"wrote {written.path}: {FRAMES} (uint8, {frames}) to {LOGITS} and {NEURONS}")
    print(f"dispatch of the neurons: {written.dispatch}")
    print(f"on {written.num_clips} clips logits differ by {written.difference:.2g} at the most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
