"""What a decoding process does with a block of a stream: rows of a manifest to stacked clips.

A clip that cannot be decoded is a row with a reason; see ``watch.py`` for those that end or hang
the process.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.order import NO_SAMPLE, TrainingOrder
from dsts_ray.data.watch import Watch
from dsts_ray.errors import DataError

Rows = dict[str, np.ndarray]
"""Columns ``clip`` (uint8), ``sample_id``, ``position``, ``label``, and ``reason``, empty where the
clip was decoded."""


class Decoder(Protocol):
    """Decodes blocks of a stream by their numbers."""

    def __call__(self, block: int) -> Rows:
        """Decode all rows of a block."""
        ...


class TrainingDecoder:
    """Decodes blocks of the training stream, see ``TrainingOrder.block``."""

    def __init__(
        self,
        table: pa.Table,
        watch: Watch,
        *,
        spec: ClipSpec,
        order: TrainingOrder,
        first_batch: int,
        num_batches: int,
        batches_per_block: int,
    ) -> None:
        """Take the videos of the split; block 0 begins with joined batch ``first_batch``."""
        self.table, self.watch, self.spec, self.order = table, watch, spec, order
        self.first_row = first_batch * order.rows_per_batch
        self.num_batches, self.batches_per_block = num_batches, batches_per_block

    def __call__(self, block: int) -> Rows:
        """Decode all rows of a block, micro-batch by micro-batch."""
        rows = self.order.block(block, self.num_batches, self.batches_per_block)
        return _stacked([self._sample(self.first_row + row) for row in rows.reshape(-1).tolist()])

    def _sample(self, row: int) -> dict[str, Any]:
        place = self.order.place(row)
        if place.sample_id == NO_SAMPLE:
            return _filler(self.spec.shape, position=place.position, label=0)
        video = _video(self.table, place.sample_id)
        return {
            "sample_id": place.sample_id,
            "position": place.position,
            "label": video["label"],
            **_decoded(
                lambda: self.spec.training_clip(
                    video, epoch=place.epoch, sample_id=place.sample_id
                ),
                self.watch,
                place.sample_id,
                self.spec.shape,
            ),
        }


class TestDecoder:
    """Decodes blocks of the evaluation stream: all views of ``block_size`` videos in turn."""

    __test__ = False

    def __init__(self, table: pa.Table, watch: Watch, *, spec: ViewSpec, block_size: int) -> None:
        """Take the videos of the split."""
        self.table, self.watch, self.spec, self.block_size = table, watch, spec, block_size

    def __call__(self, block: int) -> Rows:
        """Decode the videos of a block; numbers beyond the last video give empty rows."""
        first = block * self.block_size
        return _stacked([self._sample(row) for row in range(first, first + self.block_size)])

    def _sample(self, row: int) -> dict[str, Any]:
        if row >= len(self.table):
            return _filler(self.spec.shape, position=row, label=-1)
        video = _video(self.table, row)
        return {
            "sample_id": row,
            "position": row,
            "label": video["label"],
            **_decoded(lambda: self.spec.views(video), self.watch, row, self.spec.shape),
        }


def _decoded(
    decode: Callable[[], np.ndarray], watch: Watch, sample_id: int, shape: tuple[int, ...]
) -> dict[str, Any]:
    try:
        with watch.over(sample_id):
            return {"clip": decode(), "reason": ""}
    except DataError as error:
        return {"clip": np.zeros(shape, np.uint8), "reason": str(error)}


def _filler(shape: tuple[int, ...], *, position: int, label: int) -> dict[str, Any]:
    return {
        "clip": np.zeros(shape, np.uint8),
        "position": position,
        "sample_id": NO_SAMPLE,
        "label": label,
        "reason": "fills the block",
    }


def _video(table: pa.Table, row: int) -> dict[str, Any]:
    return table.slice(row, 1).to_pylist()[0]


def _stacked(samples: list[dict[str, Any]]) -> Rows:
    rows = {
        name: np.array([sample[name] for sample in samples])
        for name in ("sample_id", "position", "label")
    }
    rows["reason"] = np.array([sample["reason"] for sample in samples], dtype=object)
    rows["clip"] = np.stack([sample["clip"] for sample in samples])
    return rows
