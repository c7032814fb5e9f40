"""MLflow stores that cost no migration of a database each."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from dsts_ray.tracking.connection import connect

FILE = "mlflow.db"


def new_store(folder: Path) -> str:
    """An empty SQLite store in ``folder``; returns its address."""
    shutil.copyfile(_empty_store(), folder / FILE)
    return f"sqlite:///{folder / FILE}"


@cache
def _empty_store() -> Path:
    path = Path(tempfile.mkdtemp(prefix="dsts_ray_store_")) / FILE
    connect(f"sqlite:///{path}", create=True).search_experiments(max_results=1)
    return path
