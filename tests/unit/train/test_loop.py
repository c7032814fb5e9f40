import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch
from dsts_ray.data.order import TrainingOrder
from dsts_ray.errors import DataError
from dsts_ray.tracking.base import Point
from dsts_ray.train.checkpoint import (
    TrainingState,
    collect_optimizer_state,
    load_optimizer_state,
    load_weights,
    read_state,
    save_training_state,
    save_weights,
)
from dsts_ray.train.context import Notice
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.loop import TrainingLoop
from dsts_ray.train.plan import Plan
from dsts_ray.train.step import StepResult, TrainingStep
from tests.support.tiny import clip_batch, copied_state, tiny_config, tiny_model, torch_step

NUM_CLIPS, BATCH_SIZE = 10, 4


@dataclass
class FolderContext:
    """A run context that keeps one folder per checkpoint."""

    folder: Path
    rank: int = 0
    num_workers: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    reported: list[dict[str, float]] = field(default_factory=list)
    shown: list[dict[str, float]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float], write: Callable[[Path], None]) -> None:
        checkpoint = self.folder / str(int(metrics["step"]))
        checkpoint.mkdir(parents=True)
        write(checkpoint)
        self.reported.append(dict(metrics))

    def notice(self) -> Notice:
        return self.notices.pop(0) if self.notices else Notice.NONE

    def show(self, progress: Mapping[str, float]) -> None:
        self.shown.append(dict(progress))


@dataclass
class ListTracker:
    """Keeps what it is given."""

    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> int:
        self.points.append((step, dict(metrics)))
        return 1000 * step

    def undelivered(self) -> list[Point]:
        return []

    def close(self) -> None:
        pass


class SlowTracker(ListTracker):
    """Holds up whoever logs."""

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> int:
        time.sleep(0.01)
        return super().log_metrics(metrics, step=step)


class SpyStep(TrainingStep):
    """A training step that remembers which samples it was given."""

    seen: list[tuple[list[int], list[int], list[float]]]

    @classmethod
    def around(cls, step: TrainingStep) -> "SpyStep":
        spy = cls(step.model, step.downstream, step.upstream)
        spy.seen = []
        return spy

    def __call__(
        self,
        step: int,
        train: Sequence[ClipBatch],
        held_out: Sequence[ClipBatch],
        *,
        lr: float,
        upstream_lr: float,
    ) -> StepResult:
        ids, held = (
            [int(i) for batch in batches for i in batch.sample_ids] for batches in (train, held_out)
        )
        self.seen.append((ids, held, [float(w) for b in held_out for w in b.weights]))
        return super().__call__(step, train, held_out, lr=lr, upstream_lr=upstream_lr)


def stream(
    config: Config, first_step: int, num_steps: int, refused: int = 0
) -> Iterator[ClipBatch]:
    steps = config.accumulation_steps
    order = TrainingOrder(num_clips=NUM_CLIPS, batch_size=BATCH_SIZE, accumulation_steps=steps)
    for block in range(first_step * steps, (num_steps + 1) * steps):
        rows = range(block * order.micro_batch_size, (block + 1) * order.micro_batch_size)
        places = [order.place(row) for row in rows]
        batch = clip_batch([p.sample_id for p in places], [p.position for p in places])
        yield replace(
            batch, refused=tuple((i, f"video {i} is broken in {block}") for i in range(refused))
        )


def new_loop(
    folder: Path,
    config: Config,
    step: TrainingStep,
    *,
    first_step: int = 0,
    max_steps: int = 0,
    num_epochs: int = 2,
    refused: int = 0,
    max_bad_ratio: float = 0.0,
    held_out_ratio: float = 1.0,
    ledger: Ledger | None = None,
) -> TrainingLoop:
    plan = Plan(
        num_clips=NUM_CLIPS, batch_size=BATCH_SIZE, num_epochs=num_epochs, max_steps=max_steps
    )

    def write(next_step: int, metrics: dict[str, float]) -> Callable[[Path], None]:
        engines = {"downstream": step.downstream, "upstream": step.upstream}
        optimizer_state = collect_optimizer_state(engines)

        def write_files(directory: Path) -> None:
            save_weights(directory, step.model, classes=["a"], config="")
            state = TrainingState(next_step, metrics, (), loop.ledger)
            save_training_state(directory, optimizer_state, state)

        return write_files

    loop = TrainingLoop(
        context=FolderContext(folder),
        plan=plan,
        step=step,
        stream=stream(config, first_step, plan.num_steps, refused),
        accumulation_steps=config.accumulation_steps,
        evaluate=lambda: {"val/top1": 0.25},
        write=write,
        learning_rates=lambda progress: (0.1 * (1 - progress), 0.3 * (1 - progress)),
        tracker=ListTracker(),
        max_bad_ratio=max_bad_ratio,
        held_out_ratio=held_out_ratio,
        ledger=ledger or Ledger(),
    )
    return loop


def fresh(*overrides: str) -> tuple[Config, TrainingStep]:
    config = tiny_config("udl.inner_lr=0.5", f"train.batch_size={BATCH_SIZE}", *overrides)
    return config, torch_step(tiny_model(config), config)


@pytest.mark.parametrize("micro_batch_size", [4, 2])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, micro_batch_size: int
) -> None:
    override = f"train.micro_batch_size={micro_batch_size}"
    config, step = fresh(override)
    metrics = new_loop(tmp_path / "whole", config, step).run(0, {})

    config, first = fresh(override)
    new_loop(tmp_path / "part", config, first, max_steps=3).run(0, {})
    checkpoint = tmp_path / "whole" / "3"
    assert read_state(checkpoint).step == 3
    config, resumed = fresh(override)
    load_weights(checkpoint, resumed.model)
    load_optimizer_state(
        checkpoint, {"downstream": resumed.downstream, "upstream": resumed.upstream}
    )
    rest = new_loop(tmp_path / "rest", config, resumed, first_step=3).run(
        3, read_state(checkpoint).metrics
    )
    whole, parts = copied_state(step.model), copied_state(resumed.model)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert rest == metrics


def test_what_a_run_reports_shows_and_tracks(tmp_path: Path) -> None:
    config, step = fresh()
    loop = new_loop(tmp_path, config, step)
    metrics = loop.run(0, {})
    context, tracker = loop.context, loop.tracker
    assert isinstance(context, FolderContext)
    assert isinstance(tracker, ListTracker)
    assert [report["step"] for report in context.reported] == [3, 5]
    assert [shown["step"] for shown in context.shown] == [1, 2, 3, 4, 5]
    assert metrics["val/top1"] == 0.25
    assert loop.ledger.num_clips == 20
    assert 0 <= loop.ledger.data_wait_ratio < 1
    epochs = {at: point for at, point in tracker.points if "train/epoch" in point}
    assert {at: point["train/epoch"] for at, point in epochs.items()} == {2: 1.0, 4: 2.0}
    assert all(0 <= point["dsts/layer1/train_utilization"] <= 1 for point in epochs.values())
    losses = [point["train/loss"] for _, point in tracker.points if "train/loss" in point]
    assert len(losses) == 5


def test_held_out_clips_are_the_next_batch_less_those_of_this_one(tmp_path: Path) -> None:
    config, step = fresh()
    spy = SpyStep.around(step)
    new_loop(tmp_path, config, spy, num_epochs=20).run(0, {})
    order = TrainingOrder(num_clips=NUM_CLIPS, batch_size=BATCH_SIZE)
    left_out = 0
    for index, (train, held_out, weights) in enumerate(spy.seen):
        rows = range((index + 1) * BATCH_SIZE, (index + 2) * BATCH_SIZE)
        following = [order.place(row).sample_id for row in rows]
        expected = [sample for sample in following if sample not in train]
        counted = [sample for sample, weight in zip(held_out, weights, strict=True) if weight]
        assert counted == expected
        left_out += len(following) - len(expected)
    assert left_out > 0


def test_a_share_of_the_next_batch_is_held_out(tmp_path: Path) -> None:
    """Its first rows, whatever micro-batch they are in."""
    for micro_batch_size in (4, 2):
        config, step = fresh(f"train.micro_batch_size={micro_batch_size}")
        spy = SpyStep.around(step)
        loop = new_loop(tmp_path / str(micro_batch_size), config, spy, held_out_ratio=0.5)
        loop.run(0, {})
        order = TrainingOrder(num_clips=NUM_CLIPS, batch_size=BATCH_SIZE)
        for index, (train, held_out, weights) in enumerate(spy.seen):
            rows = range((index + 1) * BATCH_SIZE, (index + 1) * BATCH_SIZE + BATCH_SIZE // 2)
            expected = {order.place(row).sample_id for row in rows} - set(train)
            counted = {sample for sample, w in zip(held_out, weights, strict=True) if w}
            assert counted == expected


def test_a_finished_run_does_nothing(tmp_path: Path) -> None:
    config, step = fresh()
    before = copied_state(step.model)
    assert new_loop(tmp_path, config, step).run(5, {"val/top1": 0.5}) == {"val/top1": 0.5}
    assert all(torch.equal(value, before[name]) for name, value in copied_state(step.model).items())


def test_too_many_refused_clips_end_the_run(tmp_path: Path) -> None:
    config, step = fresh("udl.enabled=false")
    loop = new_loop(tmp_path, config, step, refused=2, max_bad_ratio=0.5)
    with pytest.raises(
        DataError, match=r"6 of 10 .*max_bad_ratio=0.5 allows 5; .*video 1 is broken"
    ):
        loop.run(0, {})
    assert not any(tmp_path.iterdir())


def test_refused_clips_are_counted_anew_in_every_epoch(tmp_path: Path) -> None:
    config, step = fresh("udl.enabled=false")
    loop = new_loop(tmp_path, config, step, refused=1, max_bad_ratio=0.3)
    loop.run(0, {})
    tracker = loop.tracker
    assert isinstance(tracker, ListTracker)
    counts = [p["train/num_refused"] for _, p in tracker.points if "train/num_refused" in p]
    assert counts == [3.0, 2.0]
    assert loop.ledger.refused == {0: "video 0 is broken in 0"}  # once, whatever the reasons later


def test_a_resumed_run_counts_on_from_its_checkpoint(tmp_path: Path) -> None:
    config, step = fresh("udl.enabled=false")
    new_loop(tmp_path / "first", config, step, refused=1, max_bad_ratio=0.3).run(0, {})
    state = read_state(tmp_path / "first" / "3")
    assert (state.ledger.num_clips, len(state.ledger.refused), state.ledger.num_refused) == (
        12,
        1,
        0,
    )
    rest = new_loop(
        tmp_path / "rest",
        config,
        step,
        first_step=3,
        refused=1,
        max_bad_ratio=0.3,
        ledger=replace(state.ledger, num_refused=1),
    )
    rest.run(3, state.metrics)
    assert rest.ledger.num_clips == 20
    assert rest.ledger.training_s > state.ledger.training_s > 0
    assert rest.all_refused() == {0: "video 0 is broken in 0"}
    tracker = rest.tracker
    assert isinstance(tracker, ListTracker)
    counts = [p["train/num_refused"] for _, p in tracker.points if "train/num_refused" in p]
    assert counts == [3.0]

    finished = read_state(tmp_path / "rest" / "5")
    again = new_loop(tmp_path / "again", config, step, first_step=5, ledger=finished.ledger)
    again.run(5, finished.metrics)
    assert again.ledger.clips_per_s == rest.ledger.clips_per_s > 0


def noticed_loop(folder: Path, *notices: Notice) -> tuple[TrainingLoop, FolderContext]:
    """A loop that has been run, with what it was told after each step."""
    config, step = fresh("udl.enabled=false")
    loop = new_loop(folder, config, step)
    context = loop.context
    assert isinstance(context, FolderContext)
    context.notices = list(notices)
    loop.run(0, {})
    return loop, context


def test_a_node_that_is_taken_away_has_the_run_saved(tmp_path: Path) -> None:
    loop, context = noticed_loop(tmp_path, Notice.NONE, Notice.SAVE)
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == [2, 3, 5]
    assert context.reported[0] == {"step": 2}
    assert not loop.was_stopped


def test_a_run_that_is_asked_to_stop_does_after_a_checkpoint(tmp_path: Path) -> None:
    loop, context = noticed_loop(tmp_path, Notice.NONE, Notice.STOP)
    assert loop.was_stopped
    assert read_state(tmp_path / "2").step == 2
    assert [reported["step"] for reported in context.reported] == [2]


def test_a_run_that_is_asked_to_stop_at_its_end_has_ended(tmp_path: Path) -> None:
    loop, context = noticed_loop(tmp_path, *[Notice.NONE] * 4, Notice.STOP)
    assert not loop.was_stopped
    assert context.reported[-1]["step"] == 5


def test_what_the_tracker_takes_from_the_loop_is_measured(tmp_path: Path) -> None:
    config = tiny_config("train.batch_size=4")
    loop = new_loop(tmp_path, config, torch_step(tiny_model(config), config))
    loop.tracker = tracker = SlowTracker()
    loop.run(0, {})
    assert 0.01 * len(tracker.points) <= loop.ledger.tracking_s < 0.02 * len(tracker.points) + 1
    logged = [point["time/tracking_ratio"] for _, point in tracker.points if "train/epoch" in point]
    assert logged[-1] == pytest.approx(loop.ledger.tracking_ratio, rel=0.5)
