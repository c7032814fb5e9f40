"""A program that serves a registered model from an environment with its requirements alone.

Arguments: the repository, whose code may not be used, a video, the model's address, and its list of
requirements. Prints where the code came from, and the predictions.
"""

import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def installed_with(requirements: Iterable[str]) -> set[str]:
    """Distributions of an environment with these requirements: they, and what they require."""
    waiting = [(Requirement(line).name, "") for line in requirements]
    found = set[tuple[str, str]]()
    while waiting:
        name, extra = waiting.pop()
        key = (canonicalize_name(name), extra)
        if key in found:
            continue
        found.add(key)
        with suppress(metadata.PackageNotFoundError):
            for entry in map(Requirement, metadata.requires(name) or []):
                if entry.marker is None or entry.marker.evaluate({"extra": extra}):
                    waiting += [(entry.name, wanted) for wanted in ("", *entry.extras)]
    return {name for name, _ in found}


class OnlyInstalled(MetaPathFinder):
    """Finds no packages of other distributions; stands in for ``PathFinder``."""

    def __init__(self, installed: set[str]) -> None:
        self.installed = installed
        self.distributions = metadata.packages_distributions()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        owners = {canonicalize_name(owner) for owner in self.distributions.get(fullname, ())}
        if owners and not owners & self.installed:
            return None
        return PathFinder.find_spec(fullname, path, target)

    find_distributions = staticmethod(PathFinder.find_distributions)


def predict(video: str, model_uri: str) -> list[Any]:
    """Predict the video from its bytes and from its path."""
    import mlflow.pyfunc
    import pandas as pd

    model = mlflow.pyfunc.load_model(model_uri)
    import dsts_ray

    content = Path(video).read_bytes()
    tables: list[Any] = [
        model.predict(pd.DataFrame({"video": [content]}), params={"top_k": 2}),
        model.predict(pd.DataFrame({"path": [video]}), params={"top_k": 2}),
    ]
    return [dsts_ray.__file__, *(table.to_dict("records") for table in tables)]


if __name__ == "__main__":
    repository, video, model_uri, requirements = sys.argv[1:]
    del sys.path[0]  # this file's folder
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(repository)]
    finders = [f for f in sys.meta_path if "editable" not in getattr(f, "__module__", "")]
    sys.meta_path = finders
    assert importlib.util.find_spec("dsts_ray") is None
    installed = installed_with(Path(requirements).read_text().splitlines())
    only = OnlyInstalled(installed | {"dsts-ray"})  # whose code is the model's
    sys.meta_path = [only if finder is PathFinder else finder for finder in finders]
    print(json.dumps(predict(video, model_uri)))
