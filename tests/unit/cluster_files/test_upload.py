"""What ``ray job submit --working-dir .`` uploads, by Ray's own packaging."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray.runtime_env import RuntimeEnv

from tests.support.cluster_files import CLUSTER, load
from tests.support.jobs import REPOSITORY

CLONE = (
    ".git/config",
    ".venv/bin/python",
    ".ci/run",
    "jobs/train.py",
    "dsts_ray/build.py",
    "dsts_ray/__pycache__/build.pyc",
    "dsts_ray/scratch/notes.txt",
    "tests/unit/test_build.py",
    "cluster/README.md",
    "runs/demo/checkpoints/model.safetensors",
    "ssv2.parquet",
    "weights/resnet50.pth",
    "videos/dive.mp4",
)
KEPT = {"jobs/train.py", "dsts_ray/build.py", "ssv2.parquet"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "clone"
    for name in CLONE:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("content")
    for name in (".gitignore", ".rayignore"):
        (root / name).write_text((REPOSITORY / name).read_text())
    (root / "dsts_ray" / ".gitignore").write_text("scratch/\n")
    return root


def uploaded(root: Path, archive: Path, **runtime_env: Any) -> set[str]:  # noqa: ANN401
    """Files that Ray packs."""

    def pack(directory: str, excludes: list[str] | None, is_file: bool = False) -> None:
        assert not is_file
        create_package(directory, archive, include_gitignore=True, excludes=excludes)

    upload_working_dir_if_needed(
        {"working_dir": str(root), **runtime_env}, include_gitignore=True, upload_fn=pack
    )
    with zipfile.ZipFile(archive) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/")]
    return {name for name in names if not name.endswith("ignore")}


def test_the_runtime_environment_is_one() -> None:
    RuntimeEnv(**load(CLUSTER / "runtime_env.yaml"))


def test_only_code_and_manifests_travel(clone: Path, tmp_path: Path) -> None:
    heavy = {"weights/resnet50.pth", "videos/dive.mp4"}
    assert uploaded(clone, tmp_path / "plain.zip") == KEPT | heavy
    runtime_env = load(CLUSTER / "runtime_env.yaml")
    assert uploaded(clone, tmp_path / "small.zip", **runtime_env) == KEPT
