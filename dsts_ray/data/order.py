"""Which clip stands where in the training stream: a pure function of seed and counts.

The stream is the concatenation of one permutation per epoch, so every clip comes exactly once per
epoch. It is cut into joined batches; a batch may straddle two epochs, nothing is dropped or padded.
A joined batch is dealt to micro-batches and workers in turn. Where they do not divide it, the last
micro-batches are one clip shorter and filled up with a row without a sample.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

NO_SAMPLE = -1
"""Sample id of rows that fill a block."""


class Place(NamedTuple):
    """Where a row of the stream comes from.

    Attributes:
        epoch: From 0.
        sample_id: Row in the manifest's split, or ``NO_SAMPLE``.
        position: Row in the joined batch; that size or more for a row without a sample.
    """

    epoch: int
    sample_id: int
    position: int


@dataclass(frozen=True, kw_only=True)
class TrainingOrder:
    """Order of the training stream.

    Attributes:
        num_clips: Clips in an epoch.
        batch_size: Clips of a joined batch.
        num_workers: Workers a joined batch is dealt to.
        accumulation_steps: Micro-batches per worker in a joined batch.
        seed: Of the permutations.
    """

    num_clips: int
    batch_size: int
    num_workers: int = 1
    accumulation_steps: int = 1
    seed: int = 0

    @property
    def micro_batches(self) -> int:
        """Micro-batches of all workers in a joined batch."""
        return self.num_workers * self.accumulation_steps

    @property
    def micro_batch_size(self) -> int:
        """Rows of a micro-batch."""
        return -(-self.batch_size // self.micro_batches)

    @property
    def rows_per_batch(self) -> int:
        """Rows of a joined batch, those without a sample too."""
        return self.micro_batches * self.micro_batch_size

    def num_blocks(self, num_batches: int, batches_per_block: int) -> int:
        """Blocks that ``num_batches`` joined batches leave the decoder in."""
        return -(-num_batches // batches_per_block) * self.num_workers

    def block(self, number: int, num_batches: int, batches_per_block: int) -> np.ndarray:
        """Row numbers of a block, int64 [micro-batches, rows of a micro-batch].

        Block b goes to worker b modulo workers; it holds that worker's rows of
        ``batches_per_block`` joined batches (fewer in the last blocks).
        """
        first_batch, worker = divmod(number, self.num_workers)
        first_batch *= batches_per_block
        batches = np.arange(first_batch, min(first_batch + batches_per_block, num_batches))
        first_micro_batch = batches[:, None] * self.micro_batches + worker
        micro_batches = first_micro_batch + self.num_workers * np.arange(self.accumulation_steps)
        return micro_batches.reshape(-1, 1) * self.micro_batch_size + np.arange(
            self.micro_batch_size
        )

    def place(self, row: int) -> Place:
        """Locate a row, counted from the start of the run.

        Micro-batch b of the m in a joined batch holds its positions b, b + m, b + 2 * m, ...; it
        belongs to worker b modulo workers. Example with 2 workers and batches of 4: rows 0-3 are
        positions 0, 2 (worker 0) and 1, 3 (worker 1) of batch 0.
        """
        batch, within = divmod(row, self.rows_per_batch)
        block, index = divmod(within, self.micro_batch_size)
        position = index * self.micro_batches + block
        if position >= self.batch_size:
            return Place(0, NO_SAMPLE, position)
        epoch, rank = divmod(batch * self.batch_size + position, self.num_clips)
        return Place(epoch, int(permutation(self.num_clips, self.seed, epoch)[rank]), position)


@lru_cache(maxsize=2)
def permutation(num_clips: int, seed: int, epoch: int) -> np.ndarray:
    """Order of the clips in an epoch, int64 [num_clips]."""
    return np.random.default_rng([seed, epoch]).permutation(num_clips)
