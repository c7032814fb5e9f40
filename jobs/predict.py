"""Classify video files with a registered model or a checkpoint folder.

python jobs/predict.py --model models:/dsts_ray@champion VIDEO...
"""

import argparse
import sys

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, predict, print; 1 if a video could not be read."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--model",
        required=True,
        help="models:/NAME@ALIAS, models:/NAME/VERSION or a checkpoint folder",
    )
    parser.add_argument("--top", type=int, default=5, help="classes per video (default: 5)")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    parser.add_argument("videos", metavar="VIDEO", nargs="+", help="video files")
    arguments = parser.parse_args()
    if arguments.top < 1:
        parser.error(f"--top is {arguments.top}; allowed: 1 or more")
    try:
        from rich.console import Console  # the imports below take seconds that --help does not need
        from rich.table import Table

        from dsts_ray.launch.evaluator import fetch_model
        from dsts_ray.predictor import load_predictor

        predictor = load_predictor(fetch_model(arguments.model, arguments.tracking_uri).directory)
        predictions = predictor.predict(arguments.videos, top_k=arguments.top)
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console()
    for video, prediction in zip(arguments.videos, predictions, strict=True):
        if prediction.error:
            console.print(
                f"{video}: {prediction.error}", style="red", soft_wrap=True, highlight=False
            )
            continue
        neurons = ", ".join(
            f"layer {layer}: {neuron}" for layer, neuron in enumerate(prediction.neurons)
        )
        table = Table(caption=f"active neurons: {neurons}" if neurons else None, show_header=False)
        for name, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            table.add_row(name, f"{probability:.4f}")
        console.print(video, soft_wrap=True, markup=False, highlight=False)
        console.print(table)
    return int(any(prediction.error for prediction in predictions))


if __name__ == "__main__":
    sys.exit(main())
