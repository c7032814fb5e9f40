from itertools import product

import numpy as np
import pytest

from dsts_ray.data.order import NO_SAMPLE, Place, TrainingOrder

SHAPES = [
    (num_clips, batch_size, num_workers, accumulation_steps)
    for (num_clips, batch_size), num_workers, accumulation_steps in product(
        ((10, 4), (12, 8), (3, 8), (7, 12), (100, 4), (9, 5)), (1, 2, 3, 4), (1, 2)
    )
]


def places(order: TrainingOrder, num_rows: int) -> list[Place]:
    return [order.place(row) for row in range(num_rows)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_clip_comes_exactly_once_per_epoch(shape: tuple[int, int, int, int]) -> None:
    num_clips, batch_size, num_workers, accumulation_steps = shape
    order = TrainingOrder(
        num_clips=num_clips,
        batch_size=batch_size,
        num_workers=num_workers,
        accumulation_steps=accumulation_steps,
    )
    rows = places(order, num_clips * order.rows_per_batch)
    for epoch in range(batch_size):
        clips = sorted(p.sample_id for p in rows if p.epoch == epoch and p.sample_id != NO_SAMPLE)
        assert clips == list(range(num_clips))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_joined_batches_do_not_depend_on_workers_and_accumulation(
    shape: tuple[int, int, int, int],
) -> None:
    num_clips, batch_size, num_workers, accumulation_steps = shape
    plain = TrainingOrder(num_clips=num_clips, batch_size=batch_size, seed=3)
    dealt = TrainingOrder(
        num_clips=num_clips,
        batch_size=batch_size,
        num_workers=num_workers,
        accumulation_steps=accumulation_steps,
        seed=3,
    )
    for batch in range(5):
        rows = range(batch * batch_size, (batch + 1) * batch_size)
        expected = [plain.place(row) for row in rows]
        assert [place.position for place in expected] == list(range(batch_size))
        rows = range(batch * dealt.rows_per_batch, (batch + 1) * dealt.rows_per_batch)
        found = sorted((dealt.place(row) for row in rows), key=lambda p: p.position)
        assert found[:batch_size] == expected
        assert [p.sample_id for p in found[batch_size:]] == [NO_SAMPLE] * (len(rows) - batch_size)


def test_rows_are_dealt_as_the_docstring_says() -> None:
    order = TrainingOrder(num_clips=10, batch_size=4, num_workers=2)
    assert [place.position for place in places(order, 8)] == [0, 2, 1, 3, 0, 2, 1, 3]
    assert (order.micro_batch_size, order.micro_batches) == (2, 2)


def test_a_batch_that_workers_do_not_divide_leaves_the_last_ones_a_row_without_a_sample() -> None:
    order = TrainingOrder(num_clips=10, batch_size=7, num_workers=3)
    positions = [place.position for place in places(order, 9)]
    assert positions == [0, 3, 6, 1, 4, 7, 2, 5, 8]
    without = [place.position for place in places(order, 9) if place.sample_id == NO_SAMPLE]
    assert without == [7, 8]


def test_micro_batches_of_all_workers_take_rows_in_turn() -> None:
    """Block b holds positions b, b + blocks, ...: with micro-batches, too."""
    order = TrainingOrder(num_clips=100, batch_size=8, num_workers=2, accumulation_steps=2)
    blocks = np.array([place.position for place in places(order, 8)]).reshape(4, 2)
    assert blocks.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_epochs_and_seeds_differ() -> None:
    order = TrainingOrder(num_clips=50, batch_size=50)
    ids = [place.sample_id for place in places(order, 100)]
    assert ids[:50] != ids[50:]
    other = TrainingOrder(num_clips=50, batch_size=50, seed=1)
    assert ids[:50] != [place.sample_id for place in places(other, 50)]
    assert ids == [place.sample_id for place in places(order, 100)]


def test_rows_are_located_without_walking_the_stream() -> None:
    order = TrainingOrder(num_clips=10, batch_size=4, num_workers=2)
    later = order.place(4 * 10**9 + 2)
    assert later.epoch == 4 * 10**8
    assert later.position == 1


@pytest.mark.parametrize(("batches_per_block", "num_blocks"), [(1, 10), (2, 6), (8, 2)])
def test_blocks_deal_every_row_once_and_keep_a_workers_micro_batches_in_order(
    batches_per_block: int, num_blocks: int
) -> None:
    order = TrainingOrder(num_clips=50, batch_size=12, num_workers=2, accumulation_steps=3)
    blocks = [
        order.block(number, 5, batches_per_block)
        for number in range(order.num_blocks(5, batches_per_block))
    ]
    assert len(blocks) == num_blocks
    for worker in range(2):
        micro_batches = np.concatenate(blocks[worker::2]).reshape(5, 3, order.micro_batch_size)
        for batch, accumulated in enumerate(micro_batches):
            for step, rows_of_micro_batch in enumerate(accumulated):
                first = batch * 12 + (step * 2 + worker) * 2
                assert rows_of_micro_batch.tolist() == [first, first + 1]
