"""Measure whether the neurons of trained models have specialized.

python jobs/specialization.py --data MANIFEST CHECKPOINT...
"""

import argparse
import json
import sys
from pathlib import Path

from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("models", type=Path, nargs="+", metavar="CHECKPOINT", help="model folders")
    parser.add_argument("--data", type=Path, required=True, help="manifest")
    parser.add_argument("--split", default="test", help="split of the manifest (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    arguments = parser.parse_args()
    try:
        from rich.console import Console  # the imports below take seconds that --help does not need
        from rich.table import Table

        from dsts_ray.bench.specialization import specialization

        found = [
            specialization(model, arguments.data, arguments.split) for model in arguments.models
        ]
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps([one._asdict() for one in found], indent=2) + "\n")
    console = Console()
    for one in found:
        table = Table(title=f"{one.model}, {one.num_videos} videos", show_header=False)
        for name, value in list(one._asdict().items())[2:]:
            figures = value if isinstance(value, list) else [value]
            table.add_row(name, "  ".join(f"{figure:.4g}" for figure in figures))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
