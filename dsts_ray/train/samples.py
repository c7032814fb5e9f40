"""The record of which clips each step was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dsts_ray.data.batch import ClipBatch
from dsts_ray.data.manifest import write_parquet
from dsts_ray.train.collective import gather_objects

SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), nullable=False),
        pa.field("worker", pa.int64(), nullable=False),
        pa.field("sample_id", pa.int64(), nullable=False),  # row in the manifest's split
        pa.field("refused", pa.bool_(), nullable=False),
    ]
)


@dataclass
class SampleRecord:
    """Clips of the steps since the last checkpoint.

    A file holds the steps between two checkpoints, and is written before the second one counts: a
    run that continues from a checkpoint writes the later files again.

    Attributes:
        folder: Of the files, shared by all workers.
    """

    folder: Path
    _rows: list[tuple[int, int, bool]] = field(default_factory=list)

    def add(self, step: int, batches: Sequence[ClipBatch]) -> None:
        """Take down a step's clips on this worker."""
        for batch in batches:
            trained = batch.sample_ids[batch.weights > 0].tolist()
            self._rows += [(step, sample_id, False) for sample_id in trained]
            self._rows += [(step, sample_id, True) for sample_id, _ in batch.refused]

    def forget_from(self, step: int) -> None:
        """Delete the files of this step and later ones, which the run trains anew."""
        for path in self.folder.glob("*.parquet"):
            if int(path.name.partition("-")[0]) >= step:
                path.unlink()

    def gathered(self) -> pa.Table:
        """Hand over the clips of all workers, by step and worker; called on all."""
        shares = enumerate(gather_objects(self._rows))
        rows = [(step, worker, *rest) for worker, own in shares for step, *rest in own]
        rows.sort(key=lambda row: row[:2])
        records = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
        self._rows = []
        return pa.Table.from_pylist(records, SCHEMA)

    def write(self, table: pa.Table) -> None:
        """Write what was gathered; one worker does."""
        steps = table["step"].to_pylist()
        write_parquet(table, self.folder / f"{min(steps):09d}-{max(steps) + 1:09d}.parquet")
