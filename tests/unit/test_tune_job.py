"""What ``jobs/tune.py`` makes of a command line, without a cluster."""

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest

from dsts_ray.launch import tune
from dsts_ray.launch.tune import SweepOutcome
from dsts_ray.report.record import DIVERGED, FAILED, FINISHED, new_record
from tests.support.jobs import REPOSITORY

Call = Callable[..., int]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the job's ``main`` with these arguments."""
    spec = importlib.util.spec_from_file_location("job", REPOSITORY / "jobs" / "tune.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["tune.py", *arguments])
        return module.main()

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel3"], "error: there is no sweep 'tabel3': use one of"),
        (["table3", "dsts.num_neuron=3"], "did you mean dsts.num_neurons?"),
        (["table3", "--row", "a"], "error: --row: 'a' is no row of sweep table3"),
        (["table3", "--seeds", "0,x"], 'seeds.1 = "x"'),
    ],
)
def test_bad_input_is_one_clear_error(
    job: Call, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert job(*arguments) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.startswith("error: ")
    assert "Traceback" not in told.err
    assert not told.out


@pytest.mark.parametrize(("outcome", "code"), [(FINISHED, 0), (DIVERGED, 0), (FAILED, 1)])
def test_the_exit_code_says_whether_a_run_failed(
    job: Call,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: str,
    code: int,
) -> None:
    def run_sweep(plan: tune.SweepPlan, *_: object, **__: object) -> SweepOutcome:
        record = new_record(plan)
        for trial in plan.trials:
            record.outcomes[trial.name] = (FINISHED, "")
        record.outcomes[plan.trials[-1].name] = (outcome, "")
        return SweepOutcome(plan.name, record, was_finished=False, uri="sqlite:////x.db")

    monkeypatch.setattr(tune, "run_sweep", run_sweep)
    assert job("table3", "--preset", "demo", "--seeds", "0") == code
    assert ("with --resume" in capsys.readouterr().out) == (code == 1)
