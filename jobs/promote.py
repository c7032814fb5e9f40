"""Compare versions of a registered model and make the better one its champion.

python jobs/promote.py                          # the best version that was measured as the champion
python jobs/promote.py --from-sweep table5      # registers the best run of a sweep first
python jobs/promote.py 7 --force --why "smaller"
python jobs/promote.py --rollback
"""

import argparse
import sys

from dsts_ray.config.schema import Config
from dsts_ray.errors import DSTSRayError
from dsts_ray.launch.home import given_or_default_uri


def parse() -> argparse.Namespace:
    """Parse the command line."""
    summary, _, examples = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("version", nargs="?", help="candidate (default: the best as declared)")
    what.add_argument(
        "--from-sweep", metavar="SWEEP", help="as for report.py; register its best run"
    )
    what.add_argument("--rollback", action="store_true", help="champion and previous change places")
    parser.add_argument("--model", default=Config().tracking.model_name, metavar="NAME")
    parser.add_argument("--metric", default="val/top1")
    parser.add_argument("--protocol", help="as 2x3 (default: the champion's)")
    parser.add_argument("--split", help="(default: the champion's)")
    parser.add_argument("--why", default="", help="kept as a tag")
    parser.add_argument("--force", action="store_true", help="in spite of objections")
    parser.add_argument("--tracking-uri", help="MLflow (default: the store beside the run folders)")
    return parser.parse_args()


def main() -> int:
    """Parse, compare, promote, print."""
    arguments = parse()
    uri = given_or_default_uri(arguments.tracking_uri)
    name = arguments.model
    try:
        from rich.console import Console  # seconds that --help does not need

        from dsts_ray.launch.promote import judge, promote, register_from_sweep, signature
        from dsts_ray.launch.promotion_table import print_verdict
        from dsts_ray.tracking.promotion import roll_back

        if arguments.rollback:
            before, now = roll_back(uri=uri, name=name, tags=signature(arguments.why or "rollback"))
            print(f"champion of {name}: version {now} again, version {before} is previous")
            return 0
        number = arguments.version
        if arguments.from_sweep:
            number = register_from_sweep(arguments.from_sweep, name, uri)
        declared = {"metric": arguments.metric, "protocol": arguments.protocol}
        verdict = judge(name, number, uri=uri, split=arguments.split, **declared)
        print_verdict(verdict, Console())
        version = f"version {verdict.candidate.number}"
        if promote(verdict, uri=uri, why=arguments.why, force=arguments.force):
            print(f"champion of {name}: {version}")
            return 0
        for objection in verdict.objections:
            print(f"{version} is not promoted: {objection}")
        if verdict.objections:
            print("--force promotes it all the same")
            return 1
        print(f"{version} is the champion already")
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
