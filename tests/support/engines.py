"""Small optimizations that DeepSpeed and torch engines run side by side on gloo workers."""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dsts_ray.models.synchronize import num_workers as world_size
from dsts_ray.train.deepspeed_engine import DeepSpeedEngine
from dsts_ray.train.engine import ParameterEngine, TorchEngine
from dsts_ray.train.optim import build_optimizer
from dsts_ray.train.partition import upstream_parameters
from dsts_ray.train.step import TrainingStep
from tests.support.tiny import copied_state, tiny_config, tiny_model
from tests.support.workers import Results, micro_batches

SHAPES = {
    "backbone.weight": (5, 3),
    "backbone.bias": (3,),
    "a_norm.weight": (2, 4),
    "last.weight": (4, 2),
}
NUM_ROWS = 8
NUM_STEPS = 4
RESUMED_AFTER = 2
CLIP_NORM = 0.2


class Case(NamedTuple):
    """One configuration of the engine."""

    zero_stage: int
    accumulation_steps: int
    optimizer: Literal["sgd", "adamw"]
    clip_norm: float

    @property
    def name(self) -> str:
        """Name of its results."""
        return "-".join(map(str, self))


CASES = [
    Case(zero_stage, accumulation_steps, optimizer, clip_norm)
    for zero_stage in (0, 1, 2)
    for accumulation_steps in (1, 2)
    for optimizer in ("sgd", "adamw")
    for clip_norm in (0.0, CLIP_NORM)
]


TRAININGS = [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]
"""ZeRO stage and accumulation steps of whole training steps."""


def new_parameters() -> dict[str, nn.Parameter]:
    """The same float32 parameters every time."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in SHAPES.items()
    }


def new_engine(
    parameters: Mapping[str, nn.Parameter], case: Case, *, deepspeed: bool, multiplier: float = 1.0
) -> ParameterEngine:
    """An engine with momentum or moments, two weight decays, and ``multiplier`` on the backbone."""
    optimizer = build_optimizer(
        parameters,
        name=case.optimizer,
        lr=1.0,
        weight_decay=0.1,
        backbone_lr_multiplier=multiplier,
    )
    if not deepspeed:
        return TorchEngine(parameters, optimizer, clip_norm=case.clip_norm)
    return DeepSpeedEngine(
        parameters,
        optimizer,
        zero_stage=case.zero_stage,
        clip_norm=case.clip_norm,
        accumulation_steps=case.accumulation_steps,
    )


def run_steps(
    engine: ParameterEngine,
    parameters: Mapping[str, nn.Parameter],
    case: Case,
    steps: range,
    rank: int,
    num_workers: int,
) -> Tensor:
    """Fit the parameters to random targets; returns the gradient's norm of every step."""
    norms = []
    for step in steps:
        blocks = num_workers * case.accumulation_steps
        for micro in range(case.accumulation_steps):
            rows = range(micro * num_workers + rank, NUM_ROWS, blocks)
            losses = [row_loss(parameters, NUM_ROWS * step + row) for row in rows]
            engine.backward(torch.stack(losses).sum() * num_workers / NUM_ROWS)
        norms.append(engine.step(0.05 / (step + 1)))
    return torch.tensor(norms)


def poison(engine: ParameterEngine, case: Case, rank: int) -> float:
    """A step in which the last worker's last loss is NaN; returns the gradient's norm."""
    for micro in range(case.accumulation_steps):
        loss = torch.stack([value.sum() for value in engine.parameters.values()]).sum()  # pyright: ignore[reportAttributeAccessIssue]
        last = rank == world_size() - 1 and micro == case.accumulation_steps - 1
        engine.backward(loss * math.nan if last else loss)
    return engine.step(0.1)


def row_loss(parameters: Mapping[str, nn.Parameter], row: int) -> Tensor:
    """Squared distance of every parameter's tanh from the row's targets."""
    generator = torch.Generator().manual_seed(row)
    losses = [
        ((value.tanh() - torch.randn(value.shape, generator=generator)) ** 2).mean()
        for value in parameters.values()
    ]
    return torch.stack(losses).sum()


def values_of(parameters: Mapping[str, nn.Parameter], prefix: str) -> Results:
    """Copies, by name behind a prefix."""
    return {f"{prefix}/{name}": value.detach().clone() for name, value in parameters.items()}


def engine_work(rank: int, num_workers: int) -> Results:
    """Every case on both engines, with the state after two steps and a resumed run."""
    results: Results = {}
    for case in CASES:
        parameters = new_parameters()
        engine = new_engine(parameters, case, deepspeed=False, multiplier=0.5)
        norms = run_steps(engine, parameters, case, range(NUM_STEPS), rank, num_workers)
        results |= values_of(parameters, f"{case.name}/torch") | {f"{case.name}/torch/norms": norms}

        parameters = new_parameters()
        engine = new_engine(parameters, case, deepspeed=True, multiplier=0.5)
        norms = [run_steps(engine, parameters, case, range(RESUMED_AFTER), rank, num_workers)]
        state, middle = engine.state(), values_of(parameters, f"{case.name}/middle")
        rest = range(RESUMED_AFTER, NUM_STEPS)
        norms.append(run_steps(engine, parameters, case, rest, rank, num_workers))
        results |= values_of(parameters, f"{case.name}/deepspeed") | middle
        results |= {f"{case.name}/deepspeed/norms": torch.cat(norms)}
        results |= {f"{case.name}/state/{name}": value for name, value in state.items()}
        results |= resume(case, state, middle, rank, num_workers, deepspeed=True)
        for name, deepspeed in (("torch", False), ("deepspeed", True)):
            parameters = new_parameters()
            engine = new_engine(parameters, case, deepspeed=deepspeed, multiplier=0.5)
            run_steps(engine, parameters, case, range(RESUMED_AFTER), rank, num_workers)
            norm = torch.tensor(poison(engine, case, rank))
            rest = range(RESUMED_AFTER, NUM_STEPS)
            run_steps(engine, parameters, case, rest, rank, num_workers)
            results |= values_of(parameters, f"{case.name}/poisoned-{name}")
            results |= {f"{case.name}/poison-{name}": norm}
    return results


def resume(
    case: Case,
    state: Mapping[str, Tensor],
    middle: Results,
    rank: int,
    num_workers: int,
    *,
    deepspeed: bool,
) -> Results:
    """Continue from a state and parameters in a fresh engine."""
    parameters = new_parameters()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(middle[f"{case.name}/middle/{name}"])
    engine = new_engine(parameters, case, deepspeed=deepspeed, multiplier=0.5)
    engine.load_state(state)
    run_steps(engine, parameters, case, range(RESUMED_AFTER, NUM_STEPS), rank, num_workers)
    return values_of(parameters, f"{case.name}/resumed")


def training_work(rank: int, num_workers: int) -> Results:
    """Three UDL steps of a tiny model for every ZeRO stage and on torch engines."""
    results: Results = {}
    for stage, accumulation_steps in (*TRAININGS, (None, 1), (None, 2)):
        state = train_tiny(stage, accumulation_steps, rank, num_workers)
        name = f"training-{accumulation_steps}/{'torch' if stage is None else stage}"
        results |= {f"{name}/{key}": value for key, value in state.items()}
    return results


def train_tiny(
    zero_stage: int | None, accumulation_steps: int, rank: int, num_workers: int
) -> Results:
    """Three UDL steps with SGD, two engines over one model."""
    config = tiny_config("udl.inner_lr=0.5")
    model = tiny_model(config, torch.float32)
    upstream = upstream_parameters(model)
    rest = {name: value for name, value in model.named_parameters() if name not in upstream}

    def engine(parameters: Mapping[str, nn.Parameter], case: Case) -> ParameterEngine:
        return new_engine(parameters, case, deepspeed=zero_stage is not None)

    step = TrainingStep(
        model,
        engine(rest, Case(zero_stage or 0, accumulation_steps, "sgd", 1.0)),
        engine(upstream, Case(zero_stage or 0, 1, "sgd", 0.0)),
        inner_lr=0.5,
    )
    for index in range(3):
        train, held_out = (
            micro_batches(first, rank, num_workers, accumulation_steps, dtype=torch.float32)
            for first in (16 * index, 16 * index + 8)
        )
        step(index, train, held_out, lr=0.02, upstream_lr=0.3)
    return copied_state(model)


def all_engine_work(rank: int, num_workers: int) -> Results:
    """Everything DeepSpeed does here, in one start of the processes."""
    return engine_work(rank, num_workers) | training_work(rank, num_workers)
