"""Prints ``cluster/constraints.txt`` from this environment: all that a plain install brings.

python -m tests.support.constraints > cluster/constraints.txt
"""

import re
import tomllib
from collections.abc import Sequence
from importlib.metadata import distribution

from packaging.requirements import Requirement

from tests.support.jobs import REPOSITORY

HEADER = """\
# Exact versions of all that a plain install brings, as the tests ran with them on Python 3.11, Linux x86-64.
# pip install --constraint cluster/constraints.txt . ; lines of packages that a variant does not need have no effect.
# Renew in an environment that passes the tests: python -m tests.support.constraints > cluster/constraints.txt
"""  # noqa: E501


def canonical(name: str) -> str:
    """A package's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(requirements: Sequence[str]) -> dict[str, str]:
    """Exact versions of what is required, directly or not."""
    versions: dict[str, str] = {}
    waiting = [(line, frozenset[str]()) for line in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        line, extras = waiting.pop()
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        name, wanted = canonical(requirement.name), frozenset(requirement.extras)
        if (name, wanted) not in seen:
            seen.add((name, wanted))
            versions[name] = distribution(name).version.partition("+")[0]
            waiting += [(needed, wanted) for needed in distribution(name).requires or []]
    return versions


if __name__ == "__main__":
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = sorted(installed(project["dependencies"]).items())
    print(HEADER + "\n".join(f"{name}=={version}" for name, version in pins))
