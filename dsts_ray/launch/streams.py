"""The streams of a run, for as many workers as a start of the worker group has.

Ray Train unpickles this in processes that never train: it imports no torch.
"""

from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.data import DataIterator, Dataset
from ray.train import DataConfig

from dsts_ray.build import build_decoder_pool
from dsts_ray.config.schema import Config
from dsts_ray.data.clip import ClipSpec, ViewSpec
from dsts_ray.data.order import TrainingOrder
from dsts_ray.data.pipeline import test_stream, training_stream, videos_per_block

TRAIN, VAL = "train", "val"


class RunStreams(DataConfig):
    """Makes a run's streams when the workers ask for their shards.

    By then rank 0 has told the board from which step they train. What Ray Train is given as data
    sets are their names alone.
    """

    def __init__(
        self,
        config: Config,
        *,
        manifest: str,
        order: TrainingOrder,
        num_steps: int,
        clip_spec: ClipSpec,
        view_spec: ViewSpec,
        board: ActorHandle[Any],
    ) -> None:
        """Make streams of these videos.

        Args:
            config: Of the run.
            manifest: Parquet file.
            order: Of the training stream, whatever the number of workers.
            num_steps: Of the run.
            clip_spec: How videos become training clips.
            view_spec: How they become the views of an evaluation.
            board: Knows the first step.
        """
        super().__init__()
        self._config, self._manifest, self._board = config, manifest, board
        self._order, self._num_steps = order, num_steps
        self._clip_spec, self._view_spec = clip_spec, view_spec

    def names(self) -> dict[str, Any]:
        """What Ray Train takes for data sets."""
        return {TRAIN: lambda: TRAIN, VAL: lambda: VAL}

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: list[ActorHandle[Any]] | None,
        worker_node_ids: list[str] | None,
        **kwargs: Any,  # noqa: ANN401 - Ray's
    ) -> list[dict[str, DataIterator]]:
        """See Ray's ``DataConfig``."""
        config = self._config.with_workers(world_size)
        streams = {TRAIN: self._training, VAL: self._evaluation}
        made = {name: streams[name](config) for name in datasets}
        options = {name: stream.context.execution_options for name, stream in made.items()}
        splits = DataConfig(execution_options=options)
        return splits.configure(made, world_size, worker_handles, worker_node_ids, **kwargs)

    def _training(self, config: Config) -> Dataset:
        first_step: Any = ray.get(self._board.first_step.remote())
        order = replace(
            self._order,
            num_workers=config.scaling.num_workers,
            accumulation_steps=config.accumulation_steps,
        )
        return training_stream(
            manifest=self._manifest,
            split=config.data.train_split,
            spec=self._clip_spec,
            order=order,
            first_batch=first_step,
            num_batches=self._num_steps - first_step + 1,
            decoders=build_decoder_pool(config),
        )

    def _evaluation(self, config: Config) -> Dataset:
        return test_stream(
            manifest=self._manifest,
            split=config.data.val_split,
            spec=self._view_spec,
            block_size=videos_per_block(self._view_spec, config.evaluation.batch_size),
            num_workers=config.scaling.num_workers,
            decoders=build_decoder_pool(config),
        )
