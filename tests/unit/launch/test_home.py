"""Where a command's files go."""

from pathlib import Path

import pytest

from dsts_ray.launch.home import output_path


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DSTS_HOME", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    return work


def test_an_output_lies_where_it_was_named(work: Path, tmp_path: Path) -> None:
    (work / "link").symlink_to(tmp_path / "elsewhere")
    assert output_path(Path("out")) == work / "out"
    assert output_path(Path("link")) == tmp_path / "elsewhere"
    assert output_path(Path("~/out")) == tmp_path / "home" / "out"
    assert output_path(Path()) == work


def test_inside_a_ray_job_a_relative_one_outlives_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert output_path(Path("out")) == tmp_path / "home" / "dsts_ray" / "runs" / "out"
    monkeypatch.setenv("DSTS_HOME", str(tmp_path / "kept"))
    assert output_path(Path("out")) == tmp_path / "kept" / "runs" / "out"
    assert output_path(tmp_path / "out") == tmp_path / "out"
