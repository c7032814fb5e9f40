"""Two workers do what one process does with the joined batch (design D8)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ray.train
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor, nn

from dsts_ray.build import build_model, build_step, learning_rates
from dsts_ray.config.load import load_config
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch, to_device
from dsts_ray.models.draws import Draws
from dsts_ray.models.recognizer import Recognition, Recognizer
from dsts_ray.train.collective import gather_rows
from dsts_ray.train.engine import ParameterEngine, TorchEngine
from dsts_ray.train.optim import build_optimizer
from dsts_ray.train.partition import upstream_parameters
from dsts_ray.train.step import TrainingStep
from tests.support.jobs import TINY

NUM_STEPS, BATCH_SIZE, NUM_CLASSES = 5, 8, 4
CPU = torch.device("cpu")
ZERO_STAGES = [0, 1, 2]
OVERRIDES = (
    *TINY,
    f"train.batch_size={BATCH_SIZE}",
    "optim.name=sgd",
    "optim.lr=0.01",
    "udl.upstream_optimizer=shared",
    "udl.inner_lr=0.5",
    "model.dropout=0.3",
    "engine.synchronize_batch_norm=true",
)


def configure(zero_stage: int) -> Config:
    return load_config(preset="demo", overrides=[*OVERRIDES, f"engine.zero_stage={zero_stage}"])


def batch(number: int, rank: int = 0, num_workers: int = 1) -> ClipBatch:
    """A worker's part of a joined batch of noise, dealt by position."""
    rng = np.random.default_rng([7, number])
    positions = np.arange(BATCH_SIZE)
    rows = {
        "clip": rng.integers(0, 256, (BATCH_SIZE, 4, 32, 32, 3), dtype=np.uint8),
        "label": rng.integers(0, NUM_CLASSES, BATCH_SIZE),
        "sample_id": positions + number * BATCH_SIZE,
        "position": positions,
        "reason": np.full(BATCH_SIZE, "", dtype=object),
    }
    rows["reason"][number % BATCH_SIZE] = "one clip of each batch does not count"
    mine = positions % num_workers == rank
    return to_device({name: values[mine] for name, values in rows.items()}, CPU)


def train(
    config: Config,
    build: Callable[[Config, Recognizer], TrainingStep],
    rank: int = 0,
    num_workers: int = 1,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Run the steps; parameters by name and the chosen neurons, (samples, id and layers)."""
    model = build_model(config, NUM_CLASSES).train()
    step = build(config, model)
    passes: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[object, Draws], output: Recognition) -> None:
        chosen = [selection.chosen for selection in output.selections]
        passes.append(torch.stack([inputs[1].sample_ids, *chosen], 1))

    model.classifier.register_forward_hook(record)
    selections = []
    for number in range(NUM_STEPS):
        lr, upstream_lr = learning_rates(config, number / NUM_STEPS)
        step(
            number,
            [batch(number, rank, num_workers)],
            [batch(number + 1, rank, num_workers)],
            lr=lr,
            upstream_lr=upstream_lr,
        )
        joined = gather_rows(torch.cat(passes[-3:]))  # simulated, held-out and actual pass
        selections.append(joined[joined[:, 0].argsort(stable=True)])
    parameters = {name: value.detach().numpy() for name, value in model.named_parameters()}
    return parameters, torch.cat(selections).numpy()


def plain_step(config: Config, model: Recognizer) -> TrainingStep:
    """The step of :func:`build_step` without DeepSpeed."""

    def engine(parameters: dict[str, nn.Parameter], clip_norm: float) -> ParameterEngine:
        optim = config.optim
        optimizer = build_optimizer(
            parameters, name="sgd", lr=optim.lr, weight_decay=optim.weight_decay
        )
        return TorchEngine(parameters, optimizer, clip_norm=clip_norm)

    upstream = upstream_parameters(model)
    rest = {name: value for name, value in model.named_parameters() if name not in upstream}
    return TrainingStep(
        model,
        engine(rest, config.optim.clip_norm),
        engine(upstream, config.udl.upstream_clip_norm),
        seed=config.train.seed,
        inner_lr=config.udl.inner_lr,
        covers=config.udl.covers,
    )


def train_on_workers(stages: dict[str, Any]) -> dict[int, Any]:
    """Runs on every worker; rank 0's return value reaches the driver."""
    torch.use_deterministic_algorithms(True)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    return {
        stage: train(configure(stage), build_step, rank, size) for stage in stages["zero_stages"]
    }


@pytest.fixture(scope="module")
def on_two_workers(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    trainer = TorchTrainer(
        train_on_workers,
        train_loop_config={"zero_stages": ZERO_STAGES},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="joined", storage_path=str(tmp_path_factory.mktemp("joined"))),
    )
    returned = trainer.fit().return_value
    assert returned is not None
    return returned


@pytest.mark.parametrize("zero_stage", ZERO_STAGES)
def test_two_workers_equal_one_process_on_the_joined_batch(
    on_two_workers: dict[int, Any], zero_stage: int
) -> None:
    parameters, selections = on_two_workers[zero_stage]
    expected, expected_selections = train(configure(zero_stage), plain_step)
    initial = dict(build_model(configure(zero_stage), NUM_CLASSES).named_parameters())
    np.testing.assert_array_equal(selections, expected_selections)
    assert parameters.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parameters[name], value, rtol=0, atol=1e-5, err_msg=name)
    upstream = upstream_parameters(build_model(configure(zero_stage), NUM_CLASSES))
    moved = [np.abs(expected[name] - initial[name].detach().numpy()).max() for name in upstream]
    assert max(moved) > 1e-4
