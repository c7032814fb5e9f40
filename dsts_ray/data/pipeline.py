"""Ray Data streams of decoded clips. The only file of the package's data part that knows Ray.

A stream is a sequence of blocks, decoded by a pool of actors with the order preserved: block b goes
to worker b modulo workers, whatever the actors' speed, and after one of them has died. Ray Data
sees a block as one row: its number before, all its clips after decoding. A training block holds a
worker's rows of several joined batches, because a block costs Ray Data some 50 ms of CPU, as much
as decoding a few clips.
"""

import math
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import (
    DataContext,
    Dataset,
    Datasource,
    ExecutionOptions,
    ExecutionResources,
    ReadTask,
)
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.data.block import BlockMetadata

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.decoder_pool import DecoderPool
from dsts_ray.data.decoders import Decoder, Rows, TestDecoder, TrainingDecoder
from dsts_ray.data.manifest import read_videos
from dsts_ray.data.order import TrainingOrder
from dsts_ray.data.watch import Watch
from dsts_ray.data.window_decoder import WindowDecoder
from dsts_ray.data.windows import SlidingWindows

CPUS_TO_COUNT = 0.1
"""Of the task that hands out a stream's block numbers, beside its decoders."""

_BLOCK_BYTES = 16 * 2**20
_MAX_BATCHES_PER_BLOCK = 8
_REST_S = 0.02
_NUMBER_BYTES = 8
_SHARE_OF_STORE = 0.4  # a run has two streams
_COLUMNS = [
    *("label", "path", "shard", "row", "start_frame", "end_frame"),
    *("width", "height", "rotation"),
]


class BlockNumbers(Datasource):
    """The numbers 0 to ``num_blocks`` - 1, one a block, in order, counted out by one task.

    A task for each would cost the driver time and memory for every block of the run before the
    first is decoded. ``ray.data.range``'s tasks ask for a whole CPU each: where workers and
    decoders have taken the CPUs but for a fraction, an evaluation beside a training stream that is
    held back would wait for ever.
    """

    def __init__(self, num_blocks: int) -> None:
        """Count out so many."""
        super().__init__()
        self.num_blocks = num_blocks

    def get_name(self) -> str:
        """Name in Ray's statistics."""
        return "BlockNumbers"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all numbers."""
        return self.num_blocks * _NUMBER_BYTES

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One task."""
        del parallelism, per_task_row_limit, data_context
        metadata = BlockMetadata(
            num_rows=self.num_blocks,
            size_bytes=self.estimate_inmemory_data_size(),
            input_files=None,
            exec_stats=None,
        )
        return [ReadTask(partial(_count_out, self.num_blocks), metadata)]


def _count_out(num_blocks: int) -> Iterator[pa.Table]:
    for number in range(num_blocks):
        yield pa.table({"block": np.array([number])})


class RestBetweenSteps(ExecutionCallback):
    """Lets Ray Data's control loop rest.

    Where decoding is faster than training, a block waits for room in the object store, and the loop
    asks for it without a pause: on two cores it took a third of one from training.
    """

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Rest; a block takes many times as long to decode."""
        del executor
        time.sleep(_REST_S)


class DecodingActor:
    """Decodes blocks by their numbers."""

    def __init__(
        self,
        *,
        decoder: Callable[[pa.Table, Watch], Decoder],
        videos: ray.ObjectRef,
        stream: str,
        timeout_s: float,
    ) -> None:
        """Take the videos, which all actors of a machine share in memory."""
        self.decode = decoder(ray.get(videos), Watch(stream, timeout_s))

    def __call__(self, rows: Rows) -> dict[str, Any]:
        """Decode a block."""
        return packed(self.decode(int(rows["block"][0])))


class WindowDecodingActor:
    """Decodes parts of a list of videos by their numbers, each into any number of blocks."""

    def __init__(
        self,
        *,
        decoder: Callable[[pa.Table, Watch], WindowDecoder],
        videos: ray.ObjectRef,
        stream: str,
        timeout_s: float,
    ) -> None:
        """Take the videos, as :class:`DecodingActor` does."""
        self.decode = decoder(ray.get(videos), Watch(stream, timeout_s))

    def __call__(self, rows: Rows) -> Iterator[dict[str, Any]]:
        """Decode a part."""
        for block in self.decode(int(rows["block"][0])):
            yield packed(block)


def training_stream(
    *,
    manifest: str,
    split: str,
    spec: ClipSpec,
    order: TrainingOrder,
    first_batch: int,
    num_batches: int,
    decoders: DecoderPool,
) -> Dataset:
    """Stream ``num_batches`` joined batches of the training order from ``first_batch`` on."""
    clip_bytes = math.prod(spec.shape)
    batches_per_block = order.num_workers * _BLOCK_BYTES // (order.rows_per_batch * clip_bytes)
    batches_per_block = min(max(1, batches_per_block), _MAX_BATCHES_PER_BLOCK)
    return _decoded(
        partial(
            TrainingDecoder,
            spec=spec,
            order=order,
            first_batch=first_batch,
            num_batches=num_batches,
            batches_per_block=batches_per_block,
        ),
        read_videos(manifest, split, _COLUMNS),
        order.num_blocks(num_batches, batches_per_block),
        decoders,
    )


def test_stream(
    *,
    manifest: str,
    split: str,
    spec: ViewSpec,
    block_size: int,
    num_workers: int,
    decoders: DecoderPool,
) -> Dataset:
    """Stream every video once, in blocks independent of the number of workers."""
    videos = read_videos(manifest, split, _COLUMNS)
    num_blocks = -(-len(videos) // block_size)
    return _decoded(
        partial(TestDecoder, spec=spec, block_size=block_size),
        videos,
        num_blocks + -num_blocks % num_workers,
        decoders,
    )


def window_stream(
    *,
    videos: pa.Table,
    spec: ViewSpec,
    sliding: SlidingWindows | None,
    parts: Sequence[int],
    videos_per_part: int,
    windows_per_block: int,
    decoders: DecoderPool,
) -> Dataset:
    """Stream the windows of some parts of a list of videos, see ``WindowDecoder``.

    Blocks come in any order.
    """
    return _decoded(
        partial(
            WindowDecoder,
            spec=spec,
            sliding=sliding,
            parts=parts,
            videos_per_part=videos_per_part,
            windows_per_block=windows_per_block,
        ),
        videos,
        len(parts),
        decoders,
        actor=WindowDecodingActor,
        preserve_order=False,
    )


def videos_per_block(spec: ViewSpec, batch_size: int) -> int:
    """Videos whose views fill a forward pass of ``batch_size`` views; one where none does."""
    return max(1, batch_size // spec.num_views)


test_stream.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]


def batches(
    shard: Any,  # noqa: ANN401
    *,
    batch_size: int,
    prefetch_blocks: int,
) -> Iterator[Rows]:
    """Iterate a worker's shard (or a whole data set) in micro-batches."""
    for block in blocks(shard, prefetch_blocks=prefetch_blocks):
        for first in range(0, len(block["sample_id"]), batch_size):
            yield {name: values[first : first + batch_size] for name, values in block.items()}


def blocks(shard: Any, *, prefetch_blocks: int = 1) -> Iterator[Rows]:  # noqa: ANN401
    """Iterate a worker's shard (or a whole data set) as it was decoded."""
    for row in shard.iter_batches(
        batch_size=None, prefetch_batches=prefetch_blocks, batch_format="numpy"
    ):
        yield unpacked(row)


def packed(block: Rows) -> dict[str, Any]:
    """Make a block one row of Ray Data's."""
    return {
        name: [values.tolist()] if values.dtype == object else values[None]
        for name, values in block.items()
    }


def unpacked(row: Rows) -> Rows:
    """Undo :func:`packed`."""
    return {name: values[0] for name, values in row.items()}


def _decoded(
    decoder: Callable[[pa.Table, Watch], Decoder | WindowDecoder],
    videos: pa.Table,
    num_blocks: int,
    decoders: DecoderPool,
    *,
    actor: type = DecodingActor,
    preserve_order: bool = True,
) -> Dataset:
    numbers = ray.data.read_datasource(
        BlockNumbers(num_blocks), override_num_blocks=1, num_cpus=CPUS_TO_COUNT, concurrency=1
    )
    numbers.context.target_max_block_size = _NUMBER_BYTES - 1  # so that every row is a block
    decoded = numbers.map_batches(
        actor,
        fn_constructor_kwargs={
            "decoder": decoder,
            "videos": ray.put(videos),
            "stream": uuid.uuid4().hex,
            "timeout_s": decoders.timeout_s,
        },
        compute=ray.data.ActorPoolStrategy(size=decoders.num_decoders),
        num_cpus=decoders.cpus,
        resources=decoders.custom_resources or None,
        batch_size=None,
    )
    decoded.context.custom_execution_callback_classes = [RestBetweenSteps]
    decoded.context.execution_options = ExecutionOptions(
        preserve_order=preserve_order,
        resource_limits=ExecutionResources.for_limits(object_store_memory=_most_bytes(decoders)),
    )
    return decoded


def _most_bytes(decoders: DecoderPool) -> float:
    """Of a stream in object stores, so that any one node that decodes has room for it.

    Ray Data alone would fill half of all nodes' stores together, on whichever node decodes, which
    then spills to its disk.
    """
    asked = {"CPU": decoders.cpus, **decoders.custom_resources}
    stores = (
        node["Resources"]["object_store_memory"]
        for node in ray.nodes()
        if node["Alive"]
        and all(node["Resources"].get(name, 0) >= amount for name, amount in asked.items())
    )
    return _SHARE_OF_STORE * min(stores, default=math.inf)
