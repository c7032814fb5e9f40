"""Report on a sweep, from MLflow alone: Markdown, CSV, HTML, figures.

python jobs/report.py table5
"""

import argparse
import sys
from pathlib import Path

from dsts_ray.config.schema import Config
from dsts_ray.errors import DSTSRayError
from dsts_ray.launch.home import given_or_default_uri, output_path, storage_folder


def main() -> int:
    """Parse, read, write, print."""
    summary, _, example = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sweep",
        metavar="SWEEP",
        help="as for jobs/tune.py, the one that ran last; or sweep-NAME-DIGEST, as tune.py tells",
    )
    parser.add_argument("--out", type=Path, help="folder (default: reports/SWEEP beside the runs)")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    arguments = parser.parse_args()
    try:
        from dsts_ray.report.results import (  # seconds that --help does not need
            read_sweep,
            sweep_name,
        )
        from dsts_ray.report.tables import build_table, to_markdown
        from dsts_ray.report.write import HTML, write_sweep_report

        reports = storage_folder(Config()) / "reports"
        out = output_path(arguments.out or reports / sweep_name(arguments.sweep))
        uri = given_or_default_uri(arguments.tracking_uri)
        table = build_table(read_sweep(arguments.sweep, uri))
        write_sweep_report(table, out)
        print(to_markdown(table, {}))
        print(f"written to {out / HTML}")
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
