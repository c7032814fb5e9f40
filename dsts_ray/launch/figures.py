"""Figures of evaluations during training, into MLflow, without making the training wait."""

import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from dsts_ray.errors import DSTSRayError
from dsts_ray.tracking.mlflow import log_artifacts
from dsts_ray.train.plan import Plan
from dsts_ray.train.predictions import SavedPredictions

ARTIFACT = "figures"
"""Artifact folder of the run; a folder a step in it."""


class FigureLog:
    """Draws an evaluation's figures and logs them, in a thread of its own."""

    def __init__(self, *, uri: str, run_id: str, plan: Plan, every: int) -> None:
        """Take every so many evaluations of the plan, and its last one.

        Args:
            uri: Tracking server.
            run_id: Of the run.
            plan: Of the run.
            every: Evaluations; 0 draws none.
        """
        self._uri, self._run_id, self._plan, self._every = uri, run_id, plan, every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._drawn: dict[int, Future[None]] = {}

    def add(
        self, saved: SavedPredictions, spatial_ratios: Sequence[Sequence[float]], *, next_step: int
    ) -> None:
        """Take an evaluation; returns at once.

        Args:
            saved: Its predictions.
            spatial_ratios: Of the gates, by layer and neuron; empty without gates.
            next_step: After the evaluation.
        """
        if self._every and self._is_due(next_step):
            drawn = self._thread.submit(self._log, saved, spatial_ratios, next_step)
            self._drawn[next_step] = drawn

    def close(self) -> list[str]:
        """Wait for what was taken; returns why figures were lost.

        Whatever drawing or MLflow raised, a full disk and matplotlib's errors too: figures must not
        end a training.
        """
        self._thread.shutdown()
        errors = {step: drawn.exception() for step, drawn in self._drawn.items()}
        return [
            f"figures of step {step}: {error if isinstance(error, DSTSRayError) else repr(error)}"
            for step, error in errors.items()
            if error
        ]

    def _is_due(self, next_step: int) -> bool:
        plan = self._plan
        number = plan.epoch_after(next_step - 1) // plan.evaluate_every_epochs
        return number % self._every == 0 or next_step == plan.num_steps

    def _log(
        self, saved: SavedPredictions, spatial_ratios: Sequence[Sequence[float]], next_step: int
    ) -> None:
        # matplotlib takes its time to import, and runs without figures do without.
        from dsts_ray.explain.pictures import draw_png
        from dsts_ray.explain.values import evaluation_figures

        with tempfile.TemporaryDirectory() as folder:
            for figure in evaluation_figures(saved, spatial_ratios):
                (Path(folder) / f"{figure.name}.png").write_bytes(draw_png(figure))
            log_artifacts(
                uri=self._uri,
                run_id=self._run_id,
                directory=Path(folder),
                artifact_path=f"{ARTIFACT}/step-{next_step:09d}",
            )
