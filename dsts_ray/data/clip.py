"""One row of a manifest to one uint8 clip of fixed shape."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from dsts_ray.data.decode import decode_clip
from dsts_ray.data.geometry import center_crop, multi_scale_crop, random_resized_crop
from dsts_ray.data.sampling import sample_frames


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a clip.

    Attributes:
        num_frames: Frames in the clip.
        short_side: Of the decoded frames, pixels.
        crop_size: Height and width of the clip, pixels.
        crop: Kind of training crop.
        crop_scale: ``random_resized``: area of a training crop over the frame's.
        crop_ratio: ``random_resized``: width over height of a training crop.
        crop_sides: ``multi_scale``: sides of a training crop over the frame's short side.
        seed: Names the random draws of training clips.
    """

    num_frames: int
    short_side: int
    crop_size: int
    crop: Literal["random_resized", "multi_scale"] = "random_resized"
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (1.0, 1.0)
    crop_sides: tuple[float, ...] = (1.0,)
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Time, height, width, 3."""
        return (self.num_frames, self.crop_size, self.crop_size, 3)

    def training_clip(self, row: dict[str, Any], *, epoch: int, sample_id: int) -> np.ndarray:
        """Random frames of equal segments, one random crop.

        Draws are named by seed, epoch and sample.

        Raises:
            DataError: The video cannot be decoded.
        """
        rng = np.random.default_rng([self.seed, epoch, sample_id])
        frames = self._decode(row, partial(sample_frames, policy="segments_random", rng=rng))
        if self.crop == "multi_scale":
            return multi_scale_crop(frames, size=self.crop_size, sides=self.crop_sides, rng=rng)
        return random_resized_crop(
            frames, size=self.crop_size, scale=self.crop_scale, ratio=self.crop_ratio, rng=rng
        )

    def test_clip(self, row: dict[str, Any]) -> np.ndarray:
        """Middle frames of equal segments, centre crop.

        Raises:
            DataError: The video cannot be decoded.
        """
        frames = self._decode(row, partial(sample_frames, policy="segments_middle"))
        return center_crop(frames, size=self.crop_size)

    def _decode(self, row: dict[str, Any], sample: partial[np.ndarray]) -> np.ndarray:
        return decode_clip(
            row["path"],
            partial(sample, clip_length=self.num_frames),
            short_side=self.short_side,
            first_frame=row["start_frame"],
            end_frame=row["end_frame"],
        )
