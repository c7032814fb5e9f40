"""What every test shares: seeds, deterministic torch, and one local Ray cluster on demand."""

import os
import random
from collections.abc import Iterator

os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "30"

import numpy as np
import pytest
import torch

MEBIBYTE = 1024**2


@pytest.fixture(scope="session", autouse=True)
def _deterministic_torch() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test draw from the global generator
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray cluster per test run, started when the first test asks for it."""
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, object_store_memory=400 * MEBIBYTE
    )
    yield
    ray.shutdown()
