"""Train a recognizer: data, training on Ray, evaluation, registration.

python jobs/train.py --preset demo dsts.num_neurons=6 optim.lr=0.005
"""

import sys

from dsts_ray.config.command_line import build_parser, config_from_arguments
from dsts_ray.config.load import config_to_yaml
from dsts_ray.errors import DSTSRayError


def main() -> int:
    """Parse, train, print."""
    parser = build_parser(str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--changed",
        metavar="KEYS",
        type=lambda keys: keys.split(","),
        default=(),
        help="continue the run of this name=... though these keys, with commas, have other values",
    )
    arguments = parser.parse_intermixed_args()
    try:
        config = config_from_arguments(arguments)
        if arguments.dry_run:
            print(config_to_yaml(config), end="")
            return 0
        from rich.console import (
            Console,
        )  # the imports below take seconds that --help and --dry-run do not need

        from dsts_ray.launch.closing import print_outcome
        from dsts_ray.launch.trainer import train

        console = Console()
        print_outcome(train(config, console, changed=arguments.changed), console)
    except DSTSRayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
