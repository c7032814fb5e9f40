"""One process at a time fills a folder."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dsts_ray.data.claim import claimed_folder
from dsts_ray.errors import DataError


def test_of_two_that_begin_at_once_one_gets_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one has seen an empty folder, too."""
    claim = {"folder": tmp_path / "out", "file": "record.json", "work": "work"}
    mkdir = Path.mkdir

    with ExitStack() as first:

        def overtaken(folder: Path, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            monkeypatch.setattr(Path, "mkdir", mkdir)
            first.enter_context(claimed_folder(record={"a": 1}, **claim))
            mkdir(folder, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", overtaken)
        with (
            pytest.raises(DataError, match=r"another process writes into .*out: wait for it"),
            claimed_folder(record={"a": 1}, **claim),
        ):
            pytest.fail("both hold the folder")
    with claimed_folder(record={"a": 1}, **claim):
        pass


def test_a_process_that_died_before_it_wrote_the_record_claimed_nothing(tmp_path: Path) -> None:
    (tmp_path / "record.json").touch()
    for _ in range(2):
        with claimed_folder(tmp_path, {"a": 1}, file="record.json", work="work"):
            pass
    with (
        pytest.raises(DataError, match=r"another work \(a: 1 before, 2 now\)"),
        claimed_folder(tmp_path, {"a": 2}, file="record.json", work="work"),
    ):
        pytest.fail("is of another record")
