"""Ray Data streams of decoded clips. The only file of the package's data part that knows Ray.

A stream is a sequence of blocks of row numbers, decoded by a pool of actors with the order
preserved: block b goes to worker b modulo workers, whatever the actors' speed, and after one of
them has died. A training block holds a worker's rows of several joined batches, because a block
costs Ray Data some 50 ms of CPU, as much as decoding a few clips.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import DataContext, Dataset, Datasource, ExecutionOptions, ReadTask
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data.block import BlockMetadata

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.manifest import Manifest
from dsts_ray.data.order import NO_SAMPLE, TrainingOrder
from dsts_ray.errors import DataError

CPUS_TO_COUNT = 0.1
"""Of the task that hands out a stream's row numbers, beside its decoders."""

Rows = dict[str, np.ndarray]

_BLOCK_BYTES = 16 * 2**20
_MAX_BATCHES_PER_BLOCK = 8
_REST_S = 0.02


class RowNumbers(Datasource):
    """Row numbers in given blocks.

    ``ray.data.range`` gives blocks of consecutive numbers, but its tasks ask for a whole CPU each:
    where workers and decoders have taken the CPUs but for a fraction, an evaluation beside a
    training stream that is held back would wait for ever.
    """

    def __init__(self, blocks: Sequence[np.ndarray]) -> None:
        """Hand out these blocks, int64 [rows] each, in order."""
        super().__init__()
        self.blocks = blocks

    def get_name(self) -> str:
        """Name in Ray's statistics."""
        return "RowNumbers"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all numbers."""
        return sum(block.nbytes for block in self.blocks)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One task a block, in order."""
        del parallelism, per_task_row_limit, data_context
        return [_hand_out(block) for block in self.blocks]


def _hand_out(block: np.ndarray) -> ReadTask:
    metadata = BlockMetadata(
        num_rows=len(block), size_bytes=block.nbytes, input_files=None, exec_stats=None
    )
    return ReadTask(lambda: [pa.table({"id": block})], metadata)


class RestBetweenSteps(ExecutionCallback):
    """Lets Ray Data's control loop rest.

    Where decoding is faster than training, a block waits for room in the object store, and the loop
    asks for it without a pause: on two cores it took a third of one from training.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Rest; a block takes many times as long to decode."""
        del executor
        time.sleep(_REST_S)


class TrainingDecoder:
    """Actor that decodes rows of the training stream."""

    def __init__(
        self, *, manifest: str, split: str, spec: ClipSpec, order: TrainingOrder, first_row: int
    ) -> None:
        """Open the manifest; row 0 of the data set is the stream's ``first_row``."""
        self.table = Manifest.read(manifest).split(split).table
        self.spec, self.order, self.first_row = spec, order, first_row

    def __call__(self, rows: Rows) -> Rows:
        """Decode the clips of these row numbers."""
        samples = []
        for row in rows["id"]:
            place = self.order.place(self.first_row + int(row))
            if place.sample_id == NO_SAMPLE:
                samples.append({**_filler(self.spec.shape, place.position), "label": 0})
                continue
            video = _video(self.table, place.sample_id)
            sample = {
                "sample_id": place.sample_id,
                "position": place.position,
                "label": video["label"],
            }
            try:
                clip = self.spec.training_clip(video, epoch=place.epoch, sample_id=place.sample_id)
                samples.append({**sample, "clip": clip, "reason": ""})
            except DataError as error:
                samples.append(
                    {**sample, "clip": np.zeros(self.spec.shape, np.uint8), "reason": str(error)}
                )
        return _stacked(samples)


class TestDecoder:
    """Actor that decodes rows of the evaluation stream, all views of sample i in row i."""

    __test__ = False

    def __init__(self, *, manifest: str, split: str, spec: ViewSpec) -> None:
        """Open the manifest."""
        self.table = Manifest.read(manifest).split(split).table
        self.spec = spec

    def __call__(self, rows: Rows) -> Rows:
        """Decode the videos of these row numbers; numbers beyond the last give empty rows."""
        samples = []
        for row in rows["id"].tolist():
            if row >= len(self.table):
                samples.append({**_filler(self.spec.shape, row), "label": -1})
                continue
            video = _video(self.table, row)
            sample = {"position": row, "sample_id": row, "label": video["label"]}
            try:
                samples.append({**sample, "clip": self.spec.views(video), "reason": ""})
            except DataError as error:
                empty = np.zeros(self.spec.shape, np.uint8)
                samples.append({**sample, "clip": empty, "reason": str(error)})
        return _stacked(samples)


def training_stream(
    *,
    manifest: str,
    split: str,
    spec: ClipSpec,
    order: TrainingOrder,
    first_batch: int,
    num_batches: int,
    num_decoders: int,
    cpus_per_decoder: float,
) -> Dataset:
    """Stream ``num_batches`` joined batches of the training order from ``first_batch`` on."""
    clip_bytes = math.prod(spec.shape)
    batches_per_block = order.num_workers * _BLOCK_BYTES // (order.rows_per_batch * clip_bytes)
    batches_per_block = min(max(1, batches_per_block), _MAX_BATCHES_PER_BLOCK)
    return _decoded(
        order.blocks(num_batches, batches_per_block),
        TrainingDecoder,
        {
            "manifest": manifest,
            "split": split,
            "spec": spec,
            "order": order,
            "first_row": first_batch * order.rows_per_batch,
        },
        num_decoders=num_decoders,
        cpus_per_decoder=cpus_per_decoder,
    )


def test_stream(
    *,
    manifest: str,
    split: str,
    num_videos: int,
    spec: ViewSpec,
    block_size: int,
    num_workers: int,
    num_decoders: int,
    cpus_per_decoder: float,
) -> Dataset:
    """Stream every video once, in blocks independent of the number of workers."""
    num_blocks = -(-num_videos // block_size)
    num_blocks += -num_blocks % num_workers
    rows = np.arange(num_blocks * block_size)
    return _decoded(
        list(rows.reshape(num_blocks, block_size)),
        TestDecoder,
        {"manifest": manifest, "split": split, "spec": spec},
        num_decoders=num_decoders,
        cpus_per_decoder=cpus_per_decoder,
    )


def videos_per_block(spec: ViewSpec, batch_size: int) -> int:
    """Videos whose views fill a forward pass of ``batch_size`` views; one where none does."""
    return max(1, batch_size // spec.num_views)


test_stream.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def execution_options() -> ExecutionOptions:
    """Options every stream runs under: order preserved."""
    return ExecutionOptions(preserve_order=True)


def batches(
    shard: Any,  # noqa: ANN401
    *,
    batch_size: int,
    prefetch_batches: int,
) -> Iterator[Rows]:
    """Iterate a worker's shard (or a whole data set) in micro-batches."""
    yield from shard.iter_batches(
        batch_size=batch_size,
        prefetch_batches=prefetch_batches,
        batch_format="numpy",
        drop_last=False,
    )


def _decoded(
    blocks: Sequence[np.ndarray],
    decoder: type,
    arguments: dict[str, Any],
    *,
    num_decoders: int,
    cpus_per_decoder: float,
) -> Dataset:
    numbers = ray.data.read_datasource(
        RowNumbers(blocks),
        override_num_blocks=len(blocks),
        num_cpus=CPUS_TO_COUNT,
        concurrency=1,
    )
    numbers.context.target_max_block_size = None  # a block stays whole, whatever its bytes
    decoded = numbers.map_batches(
        decoder,
        fn_constructor_kwargs=arguments,
        compute=ray.data.ActorPoolStrategy(size=num_decoders),
        num_cpus=cpus_per_decoder,
        batch_size=None,
    )
    decoded.context.custom_execution_callback_classes = [RestBetweenSteps]
    return decoded


def _filler(shape: tuple[int, ...], position: int) -> dict[str, Any]:
    return {
        "clip": np.zeros(shape, np.uint8),
        "position": position,
        "sample_id": NO_SAMPLE,
        "reason": "fills the block",
    }


def _video(table: Any, row: int) -> dict[str, Any]:  # noqa: ANN401
    return table.slice(row, 1).to_pylist()[0]


def _stacked(samples: list[dict[str, Any]]) -> Rows:
    rows = {
        name: np.array([sample[name] for sample in samples])
        for name in ("sample_id", "position", "label")
    }
    rows["reason"] = np.array([sample["reason"] for sample in samples], dtype=object)
    rows["clip"] = np.stack([sample["clip"] for sample in samples])
    return rows
