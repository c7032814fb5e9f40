"""``ray job submit`` on real clusters, with and without token authentication."""

import json
from pathlib import Path

from tests.support.jobs import DEMO, REPOSITORY, TINY, SubmittedRun, TrainedRun, head_node

SHORT = ("train.max_steps=2", "scaling.num_workers=1", "tracking.model_name=")


def test_a_wrong_key_fails_the_job_and_leaves_nothing(submitted: SubmittedRun) -> None:
    assert submitted.wrong.returncode == 1
    assert "did you mean dsts.num_neurons?" in submitted.wrong.stdout
    assert submitted.wrong_left_nothing


def test_with_a_token_into_the_home_of_the_cluster(submitted: SubmittedRun) -> None:
    first, runs = submitted.first, submitted.home.folder / "dsts_ray" / "runs"
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"run folder         {runs}/demo-" in first.stdout
    summary = json.loads((submitted.folder / "summary.json").read_text())
    assert summary["tracking_uri"] == f"sqlite:///{runs / 'mlflow.db'}"


def test_a_second_submission_says_finished(submitted: SubmittedRun) -> None:
    second = submitted.second
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"run {submitted.folder.name} is finished" in second.stdout


def test_to_the_letter_where_the_first_command_has_run_before(
    trained: TrainedRun, temporary: Path
) -> None:
    home = trained.home
    assert not home.token.exists()
    command = ("python", "jobs/train.py", *DEMO, *TINY, *SHORT)
    with head_node(home, temporary=temporary, cwd=REPOSITORY) as address:
        submitted = home.run("ray", "job", "submit", "--", *command, RAY_ADDRESS=address)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    (summary,) = (home.folder / "dsts_ray" / "runs").glob("*/summary.json")
    assert json.loads(summary.read_text())["num_classes"] == 4
    assert not home.token.exists()
