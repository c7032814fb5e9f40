"""A run killed without warning continues to the very same weights."""

import re

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from dsts_ray.config.load import load_config
from dsts_ray.data.order import TrainingOrder
from dsts_ray.errors import ConfigError
from dsts_ray.launch.trainer import train
from dsts_ray.tracking.mlflow import connect
from tests.support.jobs import SubmittedRun, TrainedRun, assert_same_weights, final_weights

NUM_STEPS = 12


def test_the_same_command_continues(trained: TrainedRun) -> None:
    assert f"continuing from step {trained.killed_at}" in trained.process.stdout
    assert 0 < trained.killed_at < NUM_STEPS


def test_after_a_killed_worker_all_start_again_from_the_last_checkpoint(
    trained: TrainedRun,
) -> None:
    (step,) = re.findall(
        r"a worker failed; all start again from step (\d+)", trained.process.stdout
    )
    assert int(step) >= trained.killed_at


def test_every_clip_is_trained_on_exactly_once_an_epoch(trained: TrainedRun) -> None:
    """By the ids that the steps took down, through two failures in the middle of epochs."""
    files = sorted((trained.folder / "samples").iterdir())
    record = pa.concat_tables([pq.read_table(path) for path in files])
    steps = record["step"].to_pylist()
    assert steps == sorted(steps)
    order = TrainingOrder(num_clips=16, batch_size=4, num_workers=2)
    for step in range(NUM_STEPS):
        expected = [order.place(row).sample_id for row in range(4 * step, 4 * step + 4)]
        found = record.filter(pc.field("step") == step)
        assert found["sample_id"].to_pylist() == expected
    assert not any(record["refused"].to_pylist())


def test_final_weights_are_those_of_the_undisturbed_run(
    trained: TrainedRun, submitted: SubmittedRun
) -> None:
    ours, theirs = (final_weights(run.folder, NUM_STEPS) for run in (trained, submitted))
    assert_same_weights(ours, theirs)


def test_every_step_is_logged_once(trained: TrainedRun) -> None:
    client = connect(trained.tracking_uri)
    history = client.get_metric_history(trained.summary["mlflow_run_id"], "train/loss")
    assert [point.step for point in history] == list(range(NUM_STEPS))


def test_another_configuration_under_the_same_name_is_refused(trained: TrainedRun) -> None:
    changes = (f"name={trained.folder.name}", "train.seed=1", "dsts.num_neurons=5")
    config = load_config(
        preset="demo",
        overrides=[*trained.command, *changes, f"storage.path={trained.storage}"],
    )
    with pytest.raises(
        ConfigError, match=r"dsts\.num_neurons: 3 before, 5 now; train\.seed: 0 before, 1 now"
    ):
        train(config, Console(quiet=True))
