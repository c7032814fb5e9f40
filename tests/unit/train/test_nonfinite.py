"""A step whose loss is NaN leaves no trace, and is counted or ends the run."""

import math
from pathlib import Path

import pytest
import torch

from dsts_ray.data.batch import ClipBatch
from dsts_ray.errors import DivergedError
from dsts_ray.train.ledger import Ledger
from dsts_ray.train.loop import MAX_SKIPPED_IN_A_ROW
from dsts_ray.train.step import TrainingStep
from tests.support.tiny import clip_batch, copied_state, tiny_config, tiny_model, torch_step
from tests.unit.train.test_loop import ListTracker, new_loop

SKIP = "train.on_nonfinite_loss=skip"
RATES = {"lr": 0.1, "upstream_lr": 0.3}


def fresh(*overrides: str) -> TrainingStep:
    config = tiny_config("udl.inner_lr=0.5", SKIP, *overrides)
    return torch_step(tiny_model(config), config)


def batches(first: int, *, poisoned: bool = False) -> list[ClipBatch]:
    """Two micro-batches; a pixel of the second may be NaN."""
    found = [clip_batch(range(first, first + 4)), clip_batch(range(first + 4, first + 8))]
    if poisoned:
        found[1].clips[0, 0, 0, 0, 0] = math.nan
    return found


def everything(step: TrainingStep) -> dict[str, torch.Tensor]:
    engines = {"downstream": step.downstream, "upstream": step.upstream}
    state = {f"{n}/{k}": v for n, e in engines.items() if e for k, v in e.state().items()}
    return copied_state(step.model) | state


@pytest.mark.parametrize("udl", ["true", "false"])
@pytest.mark.parametrize("where", ["train", "held_out"])
def test_a_skipped_step_leaves_parameters_moments_and_statistics_as_they_were(
    udl: str, where: str
) -> None:
    step = fresh(f"udl.enabled={udl}")
    step(0, batches(0), batches(8), **RATES)
    before = everything(step)
    train, held_out = (
        batches(8 * i, poisoned=where == n) for i, n in ((1, "train"), (2, "held_out"))
    )
    result = step(1, train, held_out, **RATES)
    assert result.was_skipped == (where == "train" or udl == "true")
    if not result.was_skipped:
        return
    assert not math.isfinite(result.loss)
    after = everything(step)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    undisturbed = fresh(f"udl.enabled={udl}")
    undisturbed(0, batches(0), batches(8), **RATES)
    for one in (step, undisturbed):
        assert not one(2, batches(16), batches(24), **RATES).was_skipped
    ours, theirs = everything(step), everything(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class PoisonedSteps(TrainingStep):
    """A training step that meets NaN at some steps."""

    poisoned: range

    def __call__(self, step, train, held_out, *, lr, upstream_lr):  # noqa: ANN001, ANN204
        if step in self.poisoned:
            train[0].clips[0, 0, 0, 0, 0] = math.nan
        return super().__call__(step, train, held_out, lr=lr, upstream_lr=upstream_lr)


def loop_of(folder: Path, poisoned: range, *, stops: bool, num_epochs: int = 2):  # noqa: ANN201
    config = tiny_config("udl.enabled=false", "train.batch_size=4", SKIP)
    step = torch_step(tiny_model(config), config)
    step = PoisonedSteps(step.model, step.downstream, None, keeps_statistics=True)
    step.poisoned = poisoned
    loop = new_loop(folder, config, step, num_epochs=num_epochs)
    loop.stops_on_nonfinite_loss = stops
    return loop


def test_a_run_stops_at_a_loss_that_is_not_finite_and_knows_its_samples(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, range(1, 2), stops=True)
    with pytest.raises(DivergedError, match=r"step 2 is not finite \(loss nan\)") as failure:
        loop.run(0, {})
    assert failure.value.step == 1
    (entry,) = loop.ledger.nonfinite
    assert entry.step == 1
    assert (len(entry.train), len(entry.held_out)) == (4, 3)  # two epochs meet: one in both
    copy = Ledger.from_json(loop.ledger.to_json())
    assert (copy.nonfinite[0].train, copy.nonfinite[0].step) == (entry.train, 1)


def test_a_run_goes_on_after_a_skipped_step_and_counts_it(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, range(1, 3), stops=False)
    metrics = loop.run(0, {})
    assert math.isfinite(metrics["train/loss"])
    assert [entry.step for entry in loop.ledger.nonfinite] == [1, 2]
    assert isinstance(loop.tracker, ListTracker)
    counts = [p["train/num_skipped"] for _, p in loop.tracker.points if "train/num_skipped" in p]
    assert counts == [1, 2]
    losses = [p["train/loss"] for _, p in loop.tracker.points if "train/loss" in p]
    assert [math.isfinite(loss) for loss in losses] == [True, False, False, True, True]


def test_a_run_that_only_skips_ends(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, range(1, 100), stops=False, num_epochs=8)
    with pytest.raises(DivergedError, match=f"{MAX_SKIPPED_IN_A_ROW - 1} steps before"):
        loop.run(0, {})
    assert len(loop.ledger.nonfinite) == MAX_SKIPPED_IN_A_ROW
