"""What the integration tests share: one trained run, and jobs called in this process."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.support.jobs import DEMO, REPOSITORY, TINY, Home, JobResult, RunJob, TrainedRun

COMMAND = (*DEMO, *TINY, "train.num_epochs=3", "train.evaluate_every_epochs=1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """One run of command 1 on tiny demo data: three epochs, a checkpoint after each."""
    home = Home(tmp_path_factory.mktemp("home"))
    process = home.job("train.py", *COMMAND)
    assert process.returncode == 0, process.stdout + process.stderr
    return TrainedRun(home, COMMAND, process)


@pytest.fixture
def run_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> RunJob:
    """Call a job's ``main`` in this process, on the Ray cluster this process is connected to."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "200")

    def run_job(script: str, *arguments: object) -> JobResult:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        spec = importlib.util.spec_from_file_location("job", REPOSITORY / "jobs" / script)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capfd.readouterr()
        try:
            code = module.main()
        except SystemExit as stopped:
            code = stopped.code
        captured = capfd.readouterr()
        return JobResult(code or 0, captured.out, captured.err)

    return run_job
