import pytest

from dsts_ray.train.plan import Plan


@pytest.mark.parametrize(
    ("num_clips", "batch_size", "num_epochs", "max_steps", "steps"),
    [(10, 4, 3, 0, 7), (10, 4, 3, 5, 5), (10, 4, 3, 100, 7), (3, 8, 1, 0, 1), (8, 4, 2, 0, 4)],
)
def test_number_of_steps(
    num_clips: int, batch_size: int, num_epochs: int, max_steps: int, steps: int
) -> None:
    plan = Plan(
        num_clips=num_clips, batch_size=batch_size, num_epochs=num_epochs, max_steps=max_steps
    )
    assert plan.num_steps == steps


def test_epochs_end_where_their_last_clip_was_seen() -> None:
    plan = Plan(num_clips=10, batch_size=4, num_epochs=4)
    assert [plan.epoch_after(step) for step in range(10)] == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4]
    assert [step for step in range(10) if plan.ends_epoch(step)] == [2, 4, 7, 9]


def test_evaluations_follow_the_period_and_come_at_the_end() -> None:
    plan = Plan(num_clips=10, batch_size=4, num_epochs=3, evaluate_every_epochs=2)
    assert plan.num_steps == 7
    assert [step for step in range(7) if plan.evaluates_after(step)] == [4, 6]
    short = Plan(num_clips=10, batch_size=4, num_epochs=3, max_steps=2)
    assert [step for step in range(2) if short.evaluates_after(step)] == [1]


def test_a_batch_larger_than_an_epoch_ends_several_at_once() -> None:
    plan = Plan(num_clips=3, batch_size=7, num_epochs=6)
    assert plan.num_steps == 2
    assert [plan.epoch_after(step) for step in range(2)] == [2, 4]
    assert all(plan.evaluates_after(step) for step in range(2))
