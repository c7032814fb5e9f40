from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_disk import small_file_system


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 800 KiB, full after one checkpoint."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_file_system(folder, "800k") as refused:
        if refused:
            pytest.skip(f"a small file system cannot be mounted: {refused}")
        yield folder
