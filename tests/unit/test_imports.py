import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
HEAVY = {"torch", "ray", "mlflow", "deepspeed", "numpy", "pyarrow"}


def loaded_modules(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after a statement."""
    program = f"import sys; {statement}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(result.stdout.split())


def test_configuration_loads_without_heavy_libraries() -> None:
    statement = "from dsts_ray.config import command_line as c; c.load_config(preset='demo')"
    loaded = loaded_modules(statement)
    assert "dsts_ray.config.load" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("module", ["data.pipeline", "launch.entry"])
def test_processes_that_only_pass_work_on_are_spared_torch(module: str) -> None:
    """Ray Data's planners and Ray Train's controller unpickle what these modules define."""
    loaded = loaded_modules(f"import dsts_ray.{module}")
    assert "ray" in loaded
    assert not loaded & {"torch", "torchvision", "mlflow", "deepspeed"}


@pytest.mark.parametrize(
    ("job", "arguments", "text"),
    [
        ("train.py", ["--help"], "dsts.num_neurons"),
        ("train.py", ["--dry-run"], "num_neurons: 6"),
        ("tune.py", ["--help"], "ablations"),
        ("tune.py", ["table5", "--dry-run"], "runs shared with ablations"),
        ("report.py", ["--help"], "SWEEP"),
        ("promote.py", ["--help"], "--rollback"),
        ("explain.py", ["--help"], "--baseline"),
        ("export.py", ["--help"], "{torch,onnx}"),
    ],
)
def test_jobs_answer_without_heavy_libraries(job: str, arguments: list[str], text: str) -> None:
    """So it answers in a fraction of a second."""
    program = f"""
import runpy, sys
sys.argv = {[job, *arguments]!r}
try:
    runpy.run_path({str(JOBS / job)!r}, run_name="__main__")
finally:
    print(*sys.modules, file=sys.stderr)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert text in told.stdout
    assert not set(told.stderr.split()) & HEAVY
