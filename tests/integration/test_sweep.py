"""Sweeps of tiny trials: killed and resumed, reported, promoted; bad trials stopped or marked."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient
from rich.console import Console

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import ConfigError
from dsts_ray.launch.tune import run_sweep
from dsts_ray.report.results import SweepResults, read_sweep
from dsts_ray.tracking.mlflow import RUN_NAME_TAG, connect
from tests.support.jobs import (
    REPOSITORY,
    Home,
    RunJob,
    head_node,
    kill_tree,
    session,
    wait_for,
)
from tests.support.tuning import Interrupted, interrupted, killed, tune, without_videos

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1200)]
NUM_STEPS = 8
SWEEP = """
title: Tiny
preset: demo
rows:
  DSTS: {}
  w/o UDL: {udl.enabled: false}
  wild: {optim.lr: 1.0e+30, optim.clip_norm: 0.0}
baseline: DSTS
paper:
  DSTS: {val/top1: 0.884}
  w/o UDL: {val/top1: 0.874}
"""
HALVING = """
title: One is never right
preset: demo
scheduler: asha
rows:
  DSTS: {}
  blind: {data.manifest: BLIND}
"""
HURT = """
title: One is killed, one has no videos to train on, one asks for more memory than there is
preset: demo
scheduler: median
rows:
  killed: {dsts.skip: false}
  lost: {data.manifest: LOST}
  huge:
    model.backbone.tpn.neck_channels: 262144
    model.backbone.tpn.neck_groups: 1
    scaling.max_failures: 1
"""


class Swept(NamedTuple):
    """A sweep interrupted in its first trial, gone on with, killed there, refused, resumed."""

    home: Home
    command: tuple[str, ...]
    interrupted: Interrupted
    refusal: str
    resumed: subprocess.CompletedProcess[str]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.home.work / 'runs' / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return connect(self.uri)

    def results(self, sweep: str = "tiny") -> SweepResults:
        return read_sweep(sweep, self.uri)

    def steps(self, run: str, key: str) -> list[int]:
        run_id = self.results().runs[run].run_id
        return [point.step for point in self.client.get_metric_history(run_id, key)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_runs: tuple[str, ...]) -> Swept:
    home = Home(tmp_path_factory.mktemp("sweep"))
    (home.work / "tiny.yaml").write_text(SWEEP)
    command = ("tiny.yaml", *tiny_runs)
    stopped = interrupted(home, *command)
    killed(home, *command, "--resume")
    assert not list(home.work.glob("runs/*/summary.json"))
    store = f"tracking.uri=sqlite:///{home.work / 'runs' / 'mlflow.db'}"
    plan = plan_sweep(load_sweep(str(home.work / "tiny.yaml")), [*command[1:], store])
    with pytest.raises(ConfigError) as refusal:
        run_sweep(plan, Console(quiet=True), resume=False)
    resumed = tune(home, *command, "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    return Swept(home, command, stopped, str(refusal.value), resumed)


def test_ctrl_c_ends_a_sweep_that_says_how_to_go_on(swept: Swept) -> None:
    code, told, seconds, statuses = swept.interrupted
    assert code == 130
    assert told.rstrip().endswith("interrupted; the same command with --resume goes on")
    assert "Traceback" not in told
    assert seconds < 60
    assert set(statuses.values()) == {"KILLED"}
    assert len(statuses) == 2  # the sweep and its first trial


def test_an_interrupted_sweep_is_not_begun_again_unasked(swept: Swept) -> None:
    assert "0 of its 3 runs are done; give --resume" in swept.refusal


def test_interrupted_trials_continue_and_all_are_nested_under_the_sweep(swept: Swept) -> None:
    results = swept.results()
    whole = results.of_row("DSTS")[0]
    assert {row: results.of_row(row)[0].outcome for row in results.rows} == {
        "DSTS": "finished",
        "w/o UDL": "finished",
        "wild": "diverged",
    }
    assert swept.steps(whole.name, "train/loss") == list(range(NUM_STEPS))
    assert swept.steps(whole.name, "val/top1") == [3, 7]
    assert "DSTS (seed 0, " in swept.resumed.stdout
    (sweep,) = (
        run
        for run in swept.client.search_runs(["1"])
        if run.data.tags.get("dsts_ray.sweep") == "tiny"
    )
    assert sweep.info.status == "FINISHED"
    for run in results.runs.values():
        assert swept.client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == sweep.info.run_id


def test_a_trial_is_the_run_that_the_same_configuration_trains(swept: Swept) -> None:
    plan = plan_sweep(load_sweep(str(swept.home.work / "tiny.yaml")), swept.command[1:])
    folders = {path.parent.name for path in swept.home.work.glob("runs/*/summary.json")}
    assert folders == {trial.name for trial in plan.trials if trial.row != "wild"}


def test_a_trial_whose_loss_is_not_finite_is_stopped_and_said_so(swept: Swept) -> None:
    wild = swept.results().of_row("wild")[0]
    assert wild.reason == "the training loss is nan at step 3"
    assert swept.steps(wild.name, "val/top1") == []
    assert swept.client.get_run(wild.run_id).info.status == "FAILED"
    assert swept.resumed.stdout.count("wild (seed 0") == 2  # starts, diverged: no retry


def test_a_finished_sweep_says_so_and_runs_nothing(swept: Swept, run_job: RunJob) -> None:
    sweep, store = swept.home.work / "tiny.yaml", f"tracking.uri={swept.uri}"
    again = run_job("tune.py", sweep, *swept.command[1:], store)
    assert again.code == 0, again.err
    assert "is finished; its runs stay as they are" in again.out


def test_the_report_comes_from_mlflow_alone(swept: Swept, run_job: RunJob) -> None:
    """In another folder, from the store's address."""
    told = run_job("report.py", "tiny", "--tracking-uri", swept.uri)
    assert told.code == 0, told.err
    text = Path("runs/reports/tiny/report.md").read_text()
    assert "2 of 3 runs finished" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| w/o UDL"))
    assert "| 87.4 |" in line
    assert "| -1.0 |" in line  # the paper's difference
    assert "8 videos of one seed" in text
    assert "seed 0 diverged: the training loss is nan at step 3" in text


def test_the_best_of_a_sweep_becomes_champion(swept: Swept, run_job: RunJob) -> None:
    store = ("--tracking-uri", swept.uri)
    sweep = str(swept.home.work / "tiny.yaml")
    promoted = run_job("promote.py", "--from-sweep", sweep, *store)
    assert promoted.code == 0, promoted.out + promoted.err
    assert "champion of dsts_ray: version 1" in promoted.out
    version = swept.client.get_model_version_by_alias("dsts_ray", "champion")
    best = max(run.best or 0 for run in swept.results().runs.values())
    assert float(version.tags["val/top1"]) == best
    assert version.tags["num_videos"] == "8"
    again = run_job("promote.py", "--from-sweep", sweep, *store)
    assert "version 1 is the champion already" in again.out
    back = run_job("promote.py", "--rollback", *store)
    assert back.code == 2
    assert "no alias previous" in back.error


def test_asha_stops_the_worse_trial_and_takes_the_shared_run_as_it_is(
    swept: Swept, tiny_runs: tuple[str, ...]
) -> None:
    """Of the blind trial every test video is refused, which counts as wrong."""
    blind = without_videos(tiny_runs, "test", swept.home.work)
    (swept.home.work / "halving.yaml").write_text(HALVING.replace("BLIND", str(blind)))
    whole = swept.results().of_row("DSTS")[0]
    summary = swept.home.work / "runs" / whole.name / "summary.json"
    written = summary.stat().st_mtime_ns
    told = tune(swept.home, "halving.yaml", *tiny_runs)
    assert told.returncode == 0, told.stdout + told.stderr
    results = swept.results("halving")
    blind_run = results.of_row("blind")[0]
    assert results.of_row("DSTS")[0].name == whole.name
    assert results.of_row("DSTS")[0].outcome == "finished"
    assert summary.stat().st_mtime_ns == written
    assert blind_run.outcome == "stopped early", told.stdout
    assert blind_run.curve == [(3, 0.0)]
    assert swept.client.get_run(blind_run.run_id).info.status == "KILLED"
    assert json.loads(summary.read_text())["val/top1"] > 0.0


def test_a_killed_trial_goes_on_with_what_it_held_and_failed_ones_are_told_of(
    tiny_runs: tuple[str, ...], tmp_path: Path
) -> None:
    """Its process dies before its first evaluation; two CPUs do not hold its workers twice."""
    home = Home(tmp_path)
    lost = without_videos(tiny_runs, "train", home.work)
    (home.work / "hurt.yaml").write_text(HURT.replace("LOST", str(lost)))
    command = ("hurt.yaml", *tiny_runs, "train.checkpoint_every_steps=1")
    plan = plan_sweep(load_sweep(str(home.work / "hurt.yaml")), command[1:])
    checkpoints = home.work / "runs" / plan.trials[0].name / "checkpoints"
    with (home.work / "hurt.out").open("w+") as out:
        process = home.start("tune.py", *command, out=out)
        try:
            wait_for(process, (checkpoints / "checkpoint_manager_snapshot.json").exists)
            next(one for one in session(process) if "ImplicitFunc" in one.cmdline()[0]).kill()
            process.wait(400)
        finally:
            kill_tree(process)
        out.seek(0)
        told = out.read()
    assert process.returncode == 1, told
    assert "retry 1" in told
    uri = f"sqlite:///{home.work / 'runs' / 'mlflow.db'}"
    results, client = read_sweep("hurt", uri), connect(uri)
    outcomes = {row: results.of_row(row)[0].outcome for row in results.rows}
    assert outcomes == {"killed": "finished", "lost": "failed", "huge": "failed"}, told
    assert "out of memory" in results.of_row("huge")[0].reason
    assert "you tried to allocate 824633720832 bytes" in results.of_row("huge")[0].reason
    assert told.count("huge (seed 0") == 2, told  # starts, failed: no retry
    points = client.get_metric_history(results.of_row("killed")[0].run_id, "train/loss")
    assert [point.step for point in points] == list(range(NUM_STEPS))
    assert "could not be decoded" in results.of_row("lost")[0].reason
    (sweep,) = client.search_runs(["1"], f'tags.`{RUN_NAME_TAG}` = "{results.run_name}"')
    assert sweep.info.status == "FAILED"


def test_two_submitted_sweeps_at_once_share_the_cluster_and_their_runs(
    tiny_runs: tuple[str, ...], tmp_path: Path, temporary: Path
) -> None:
    """The cluster carries one run at a time; the sweeps have one of their two runs in common."""
    home = Home(tmp_path)
    sweeps = {"one": "w/o skip: {dsts.skip: false}", "two": "w/o UDL: {udl.enabled: false}"}
    for name, row in sweeps.items():
        text = f"title: {name}\npreset: demo\nrows:\n  DSTS: {{}}\n  {row}\n"
        (home.work / f"{name}.yaml").write_text(text)
    variables = {"RAY_AUTH_MODE": "disabled", "PYTHONPATH": ""}
    with head_node(home, temporary=temporary, cwd=home.work, **variables) as address:
        submit = ("ray", "job", "submit", "--address", address, "--working-dir", ".", "--")
        jobs = [
            subprocess.Popen(
                [*submit, "python", "jobs/tune.py", str(home.work / f"{name}.yaml"), *tiny_runs],
                cwd=REPOSITORY,
                env=home.environment(**variables),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for name in sweeps
        ]
        told = [job.communicate(timeout=500)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], told
    uri = f"sqlite:///{home.folder / 'dsts_ray' / 'runs' / 'mlflow.db'}"
    results = [read_sweep(name, uri) for name in sweeps]
    assert [run.outcome for found in results for run in found.runs.values()] == ["finished"] * 4
    assert [found.rows for found in results] == [["DSTS", "w/o skip"], ["DSTS", "w/o UDL"]]
    common = results[0].of_row("DSTS")[0]
    assert common.name == results[1].of_row("DSTS")[0].name
    points = connect(uri).get_metric_history(common.run_id, "train/loss")
    assert [point.step for point in points] == list(range(NUM_STEPS))
