"""The streams of a run, for as many workers as a start of the worker group has."""

from typing import Any

import ray
from ray.actor import ActorHandle
from ray.data import DataIterator, Dataset
from ray.train import DataConfig

from dsts_ray.build import build_clip_spec, build_order, build_plan, build_view_spec
from dsts_ray.config.schema import Config
from dsts_ray.data.pipeline import (
    execution_options,
    test_stream,
    training_stream,
    videos_per_block,
)
from dsts_ray.launch.run import Run

TRAIN, VAL = "train", "val"


class RunStreams(DataConfig):
    """Makes a run's streams when the workers ask for their shards.

    By then rank 0 has told the board from which step they train. What Ray Train is given as data
    sets are their names alone.
    """

    def __init__(self, run: Run, num_clips: int, board: ActorHandle[Any]) -> None:
        """Make streams of these videos.

        Args:
            run: What is trained.
            num_clips: In the training split.
            board: Knows the first step.
        """
        super().__init__(execution_options=execution_options())
        self._run, self._num_clips, self._board = run, num_clips, board

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
        config = self._run.config.with_workers(world_size)
        streams = {TRAIN: self._training, VAL: self._evaluation}
        made = {name: streams[name](config) for name in datasets}
        return super().configure(made, world_size, worker_handles, worker_node_ids, **kwargs)

    def _training(self, config: Config) -> Dataset:
        first_step: Any = ray.get(self._board.first_step.remote())
        return training_stream(
            manifest=str(self._run.manifest),
            split=config.data.train_split,
            spec=build_clip_spec(config),
            order=build_order(config, self._num_clips),
            first_batch=first_step,
            num_batches=build_plan(config, self._num_clips).num_steps - first_step + 1,
            num_decoders=config.data.num_decoders,
            cpus_per_decoder=config.data.cpus_per_decoder,
            decoder_resource=config.data.decoder_resource,
            timeout_s=config.data.decode_timeout_s,
        )

    def _evaluation(self, config: Config) -> Dataset:
        spec = build_view_spec(config)
        return test_stream(
            manifest=str(self._run.manifest),
            split=config.data.val_split,
            spec=spec,
            block_size=videos_per_block(spec, config.evaluation.batch_size),
            num_workers=config.scaling.num_workers,
            num_decoders=config.data.num_decoders,
            cpus_per_decoder=config.data.cpus_per_decoder,
            decoder_resource=config.data.decoder_resource,
            timeout_s=config.data.decode_timeout_s,
        )
