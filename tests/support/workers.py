"""Joined training on real gloo processes, and what each of them computes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.backbones.output import BackboneOutput
from dsts_ray.models.batch_norm import BatchNorm
from dsts_ray.models.draws import Draws
from dsts_ray.models.dsts.module import DSTSModule
from dsts_ray.models.dsts.variant import Variant
from dsts_ray.models.recognizer import Classifier, Recognition
from dsts_ray.train.collective import gather_rows, mean_over_workers, sum_over_workers
from dsts_ray.train.evaluate import ViewPredictor, predict_split
from dsts_ray.train.losses import joined_cross_entropy, utilization_loss
from dsts_ray.train.partition import partition_classifier
from dsts_ray.train.udl import FeatureBatch, upstream_gradient
from tests.support.tiny import (
    CROP_SIZE,
    NUM_FRAMES,
    clip_batch,
    copied_state,
    tiny_config,
    tiny_model,
    torch_step,
)

NUM_WORKERS = 2
VARIANT = Variant(num_neurons=3, groups=2, fuse_groups=2)
Results = dict[str, Tensor]
Work = Callable[[int, int], Results]
"""Maps rank and number of workers to what the worker computed."""


def run_on_workers(work: Work, directory: Path, *, num_workers: int = NUM_WORKERS) -> list[Results]:
    """Run on fresh processes joined by gloo; returns every rank's results."""
    directory.mkdir(parents=True, exist_ok=True)
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        [__name__]
    )  # import torch once
    start_processes(
        _work,
        (work, num_workers, str(directory)),
        nprocs=num_workers,
        start_method="forkserver",
    )
    return [torch.load(_file(directory, rank), weights_only=True) for rank in range(num_workers)]


def _work(rank: int, work: Work, num_workers: int, directory: str) -> None:
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # as every launcher does; DeepSpeed asks for it
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/store", rank=rank, world_size=num_workers
    )
    torch.save(work(rank, num_workers), _file(Path(directory), rank))
    dist.barrier()
    dist.destroy_process_group()


def _file(directory: Path, rank: int) -> Path:
    return directory / f"rank{rank}.pt"


def seeded(seed: int, *size: int) -> Tensor:
    """Normal numbers in float64."""
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def all_work(rank: int, num_workers: int) -> Results:
    """Every check that needs no DeepSpeed, under one name each."""
    works: dict[str, Work] = {
        "batch_norm": batch_norm_work,
        "half_precision": half_precision_work,
        "collective": collective_work,
        "loss": loss_work,
        "predictions": prediction_work,
        "udl_dense": partial(udl_work, variant=VARIANT),
        "udl_sparse": partial(udl_work, variant=replace(VARIANT, dispatch="sparse")),
        "udl_average": partial(
            udl_work, variant=replace(VARIANT, synapse="average", fuse="per_neuron")
        ),
        "udl_ours": partial(
            udl_work,
            variant=replace(VARIANT, impulse="running", specialization="conv3d"),
            ours=True,
        ),
        "step_1": lambda rank, workers: step_work(rank, workers, 1),
        "step_2": lambda rank, workers: step_work(rank, workers, 2),
        "step_uneven": lambda rank, workers: step_work(rank, workers, 2, num_clips=7),
        "step_previous": lambda rank, workers: step_work(
            rank, workers, 2, "udl.held_out=previous_features"
        ),
        "step_plain": lambda rank, workers: step_work(
            rank, workers, 1, "udl.enabled=false", "dsts.utilization_loss_weight=0.5"
        ),
    }
    return {
        f"{name}/{key}": value
        for name, work in works.items()
        for key, value in work(rank, num_workers).items()
    }


def batch_norm_work(rank: int, num_workers: int) -> Results:
    """Forward, backward and double backward of BatchNorm over 5 and 2 rows."""
    size = (7, 3, 2, 4)
    rows = slice(None) if num_workers == 1 else (slice(0, 5), slice(5, 7))[rank]
    layer = BatchNorm(3).double()
    layer.weight.data, layer.bias.data = seeded(0, 3), seeded(1, 3)
    values = seeded(2, *size)[rows].requires_grad_()
    output = layer(values)
    loss = ((output * seeded(3, *size)[rows]) ** 3).sum()
    inputs = [values, layer.weight, layer.bias]
    first = torch.autograd.grad(loss, inputs, create_graph=True)
    product = (first[0] * seeded(4, *size)[rows]).sum() + (first[1] * seeded(5, 3)).sum()
    second = torch.autograd.grad(product, inputs)
    rest = {"output": output, "first_rows": first[0], "second_rows": second[0]}
    rest |= {"first_weight_sum": first[1], "first_bias_sum": first[2]}
    rest |= {"second_weight_sum": second[1], "second_bias_sum": second[2]}
    rest |= {f"{name}_same": value for name, value in layer.named_buffers()}
    return {name: value.detach() for name, value in rest.items()}


def half_precision_work(rank: int, num_workers: int) -> Results:
    """Forward and backward of BatchNorm over 5 and 2 bfloat16 rows far from zero."""
    size = (7, 3, 5, 9)
    rows = slice(None) if num_workers == 1 else (slice(0, 5), slice(5, 7))[rank]
    layer = BatchNorm(3)
    values = (seeded(0, *size)[rows] + 3).bfloat16().requires_grad_()
    output = layer(values)
    gradient = torch.autograd.grad((output * seeded(1, *size)[rows].bfloat16()).sum(), values)[0]
    statistics = {f"{name}_same": value for name, value in layer.named_buffers()}
    return {"output": output.detach(), "gradient_rows": gradient, **statistics}


def collective_work(rank: int, num_workers: int) -> Results:
    """Sums, means and joined rows of different numbers."""
    if num_workers == 1:
        return {"sum": torch.tensor([3.0]), "mean": torch.tensor([[1.5]]), "rows": torch.arange(5)}
    own = torch.arange(3) if rank == 0 else torch.arange(3, 5)
    value = torch.tensor([1.0 + rank])
    assert mean_over_workers([]) == []
    return {
        "sum": sum_over_workers(value),
        "mean": mean_over_workers([value.view(1, 1)])[0],
        "rows": gather_rows(own),
    }


def loss_work(rank: int, num_workers: int) -> Results:
    """The joined loss of shards of 5 and 2 rows, one row of weight 0."""
    rows = slice(None) if num_workers == 1 else (slice(0, 5), slice(5, 7))[rank]
    logits, labels = seeded(0, 7, 4)[rows], torch.tensor([0, 1, 2, 3, 0, 1, 2])[rows]
    weights = torch.tensor([1, 1, 0, 1, 1, 1, 1], dtype=torch.float64)[rows]
    summand = joined_cross_entropy(
        logits,
        labels,
        weights,
        normalizer=sum_over_workers(weights.sum()) / num_workers,
        label_smoothing=0.1,
    )
    return {"joined": mean_over_workers([summand])[0]}


def prediction_work(rank: int, num_workers: int) -> Results:
    """Predictions of 5 videos in blocks of 2, one of them refused, dealt to the workers."""
    model = tiny_model(tiny_config(), torch.float32)
    blocks = [evaluation_block([0, 1], [""] * 2), evaluation_block([2, 3], ["broken", ""])]
    blocks += [
        evaluation_block([4, -1], ["", "fills the last block"]),
        evaluation_block([-1, -1], ["x"] * 2),
    ]
    own = [block for index, block in enumerate(blocks) if index % num_workers == rank]
    predict = ViewPredictor(model, torch.device("cpu"), "softmax", 2, "wrong")
    predictions = predict_split(predict, own, num_videos=5)
    names = ("labels", "probabilities", "views_seen", "chosen")
    return {name: getattr(predictions, name) for name in names}


def evaluation_block(
    sample_ids: Sequence[int], reasons: Sequence[str], num_views: int = 1
) -> dict[str, np.ndarray]:
    """Decoded rows as the evaluation stream delivers them."""
    shape = (num_views, NUM_FRAMES, CROP_SIZE, CROP_SIZE, 3)
    clips = [np.random.default_rng(abs(sample)).integers(0, 255, shape) for sample in sample_ids]
    return {
        "sample_id": np.array(sample_ids),
        "position": np.array(sample_ids),
        "label": np.array([sample % 4 for sample in sample_ids]),
        "reason": np.array(reasons, dtype=object),
        "clip": np.stack(clips).astype(np.uint8),
    }


def udl_work(rank: int, num_workers: int, *, variant: Variant, ours: bool = False) -> Results:
    """Eq. 10 of joined batches of 7 and 5 samples, rows dealt in turn; ``ours`` adds our terms."""
    torch.manual_seed(0)
    dsts = DSTSModule(channels=4, num_layers=2, variant=variant)
    classifier = Classifier(
        dsts=dsts, feature_channels=4, pooled_channels=0, num_classes=3, dropout=0.3
    ).double()
    for parameter in classifier.parameters():
        nn.init.normal_(parameter)

    def batch(role: Literal["train", "held_out"], num: int, first: int) -> FeatureBatch:
        own = torch.arange(rank, num, num_workers)
        labels = own % 3
        return FeatureBatch(
            BackboneOutput(seeded(first, num, 4, 2, 3, 2)[own]),
            Draws(0, 1, role, own + first, own),
            lambda logits: (
                nn.functional.cross_entropy(logits, labels, reduction="sum") * num_workers / num
            ),
        )

    result = upstream_gradient(
        classifier.train(),
        partition_classifier(classifier, "module"),
        train=[batch("train", 7, 0)],
        held_out=[batch("held_out", 5, 100)],
        inner_lr=0.5,
        first_order=ours,
        penalty=utilization_penalty if ours else None,
    )
    gradients = mean_over_workers(list(result.gradients.values()))
    losses = mean_over_workers([result.simulated_loss, result.held_out_loss])
    return {
        **dict(zip(result.gradients, gradients, strict=True)),
        "simulated_loss": losses[0],
        "held_out_loss": losses[1],
    }


def utilization_penalty(recognition: Recognition) -> Tensor:
    """A utilization loss whose gradient is of Eq. 10's order."""
    return 0.3 * utilization_loss(recognition.selections, temperature=1.0)


def step_work(
    rank: int, num_workers: int, accumulation_steps: int, *overrides: str, num_clips: int = 8
) -> Results:
    """Three UDL steps on joined batches of so many clips; returns all parameters and buffers."""
    config = tiny_config("udl.inner_lr=0.5", *overrides)
    step = torch_step(tiny_model(config), config, clip_norm=0.5)
    losses = []
    for index in range(3):
        train, held_out = (
            micro_batches(first, rank, num_workers, accumulation_steps, num_clips=num_clips)
            for first in (16 * index, 16 * index + 8)
        )
        result = step(index, train, held_out, lr=0.1, upstream_lr=0.3)
        assert result.num_clips == num_clips
        losses.append(result.loss)
    return {**copied_state(step.model), "losses": torch.tensor(losses)}


def micro_batches(
    first: int,
    rank: int,
    num_workers: int,
    accumulation_steps: int,
    *,
    num_clips: int = 8,
    dtype: torch.dtype = torch.float64,
) -> list[ClipBatch]:
    """A worker's share of the joined batch of ``num_clips`` samples from ``first`` on.

    The rows are dealt as if to two workers; a single worker holds both workers' rows.
    """
    blocks = NUM_WORKERS * accumulation_steps
    own = [rank] if num_workers == NUM_WORKERS else list(range(NUM_WORKERS))
    batches = []
    for micro in range(accumulation_steps):
        positions = [p for w in own for p in range(micro * NUM_WORKERS + w, num_clips, blocks)]
        batches.append(clip_batch([first + p for p in positions], positions, dtype=dtype))
    return batches
