"""Recognizers and batches of a preset."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from dsts_ray.build import build_model
from dsts_ray.config.load import load_config
from dsts_ray.config.schema import Config
from dsts_ray.data.batch import ClipBatch
from dsts_ray.models.recognizer import Recognizer

NUM_CLASSES = 174
_STRIDE = 32


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a bench runs on.

    Attributes:
        preset: Names the network.
        device: Where.
        precision: ``fp32`` or ``bf16``.
        scale: Of the frames' side; 1 is that of the preset's evaluation.
        batch_size: Clips in a batch.
        repeats: Timed runs of each way.
        only: Part of the names of ``train_overhead``'s variants, or ``data``'s kinds of files, that
            are run.
        overrides: ``key=value`` over the preset.
        folder: Of the videos that ``data`` renders.
    """

    device: torch.device
    preset: str = "ssv2_tpn_dsts"
    precision: str = "fp32"
    scale: float = 1.0
    batch_size: int = 2
    repeats: int = 5
    only: str = ""
    overrides: tuple[str, ...] = ()
    folder: Path = Path("runs/data")

    @cached_property
    def crop_size(self) -> int:
        """Pixels of a frame's side, a multiple of the network's stride."""
        config = load_config(preset=self.preset, overrides=self.overrides)
        whole = config.evaluation.crop_size or config.data.crop_size
        return max(_STRIDE, round(whole * self.scale / _STRIDE) * _STRIDE)

    @property
    def device_name(self) -> str:
        """``cpu``, or the GPU's name."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"

    def config(self, *overrides: str) -> Config:
        """The preset at this size."""
        return load_config(
            preset=self.preset,
            overrides=[
                f"data.crop_size={self.crop_size}",
                f"data.short_side={self.crop_size}",
                f"train.batch_size={self.batch_size}",
                f"engine.precision={self.precision}",
                "scaling.num_workers=1",
                "train.micro_batch_size=0",
                *self.overrides,
                *overrides,
            ],
        )

    def shapes(self, config: Config) -> str:
        """What a row says of its input."""
        return (
            f"{self.batch_size} clips 3x{config.data.num_frames}x{self.crop_size}x"
            f"{self.crop_size}, {self.precision}"
        )

    def model(self, config: Config) -> Recognizer:
        """A recognizer on the device, in training mode."""
        return build_model(config, NUM_CLASSES).to(self.device).train()

    def batch(self, config: Config, number: int, size: int | None = None) -> ClipBatch:
        """Noise, with labels; ``number`` tells batches apart."""
        size = size or self.batch_size
        generator = torch.Generator().manual_seed(number)
        shape = (size, 3, config.data.num_frames, self.crop_size, self.crop_size)
        clips = torch.randn(shape, generator=generator)
        labels = torch.randint(NUM_CLASSES, (size,), generator=generator)
        ids = torch.arange(size) + number * self.batch_size
        return ClipBatch(
            clips.to(self.device),
            labels.to(self.device),
            ids.to(self.device),
            torch.arange(size, device=self.device),
            torch.ones(size, device=self.device),
            (),
        )
