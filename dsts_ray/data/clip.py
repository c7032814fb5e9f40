"""One row of a manifest to one uint8 clip, or to the views of a test, of fixed shape.

``geometry``, and torch with it, is imported where a clip is made: all processes of a stream
unpickle these classes, and most of them decode nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from dsts_ray.data.decode import Display, decode_clip, name_of
from dsts_ray.data.sampling import Sampling, middle_frames, random_frames
from dsts_ray.data.source import video_name, video_source
from dsts_ray.data.windows import Window
from dsts_ray.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a training clip.

    Attributes:
        num_frames: Frames in the clip.
        short_side: Of the frames that the clip is cropped from, where they would be larger, pixels.
        crop_size: Height and width of the clip, pixels.
        sampling: Which frames.
        frame_stride: ``dense``: frames from one of the clip to the next.
        crop: Kind of crop.
        crop_scale: ``random_resized``: area of the crop over the frame's.
        crop_ratio: ``random_resized``: width over height of the crop.
        crop_sides: ``multi_scale``: sides of the crop over the frame's short side.
        seed: Names the random draws.
    """

    num_frames: int
    short_side: int
    crop_size: int
    sampling: Sampling = "segments"
    frame_stride: int = 1
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
        """Random frames, one random crop.

        Draws are named by seed, epoch and sample.

        Raises:
            DataError: The video cannot be decoded.
        """
        from dsts_ray.data.geometry import multi_scale_crop, random_resized_crop

        rng = np.random.default_rng([self.seed, epoch, sample_id])
        frames = decode_row(
            row,
            partial(
                random_frames,
                clip_length=self.num_frames,
                sampling=self.sampling,
                stride=self.frame_stride,
                rng=rng,
            ),
            self.short_side,
        )
        if self.crop == "multi_scale":
            return multi_scale_crop(frames, size=self.crop_size, sides=self.crop_sides, rng=rng)
        return random_resized_crop(
            frames, size=self.crop_size, scale=self.crop_scale, ratio=self.crop_ratio, rng=rng
        )


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """How a video becomes the views of a test.

    Attributes:
        num_clips: Clips, dealt out over the video as ``sampling.middle_frames`` says.
        num_crops: Crops of every clip, spread along the longer side.
        num_frames: Frames in a clip.
        short_side: Of the frames that the views are cropped from, pixels.
        crop_size: Height and width of a view, pixels.
        sampling: Which frames.
        frame_stride: ``dense``: frames from one of the clip to the next.
    """

    num_clips: int = 1
    num_crops: int = 1
    num_frames: int
    short_side: int
    crop_size: int
    sampling: Sampling = "segments"
    frame_stride: int = 1

    @property
    def num_views(self) -> int:
        """Views of a video."""
        return self.num_clips * self.num_crops

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Views, time, height, width, 3."""
        return (self.num_views, self.num_frames, self.crop_size, self.crop_size, 3)

    def views(self, row: dict[str, Any]) -> np.ndarray:
        """All views of a video, which is decoded once; crop k of clip c is view c * num_crops + k.

        Raises:
            DataError: The video cannot be decoded.
        """
        return self.views_of(row, lambda num_frames: [(0, num_frames)])[0]

    def views_of(
        self, row: dict[str, Any], windows: Callable[[int], Sequence[Window]]
    ) -> np.ndarray:
        """All views of each of some windows of a video, which is decoded once.

        Args:
            row: The video.
            windows: Gets the number of frames in the video's part, as the decoder delivers them,
                and returns windows within these, one or more.

        Returns:
            uint8 [windows, views, time, height, width, 3].

        Raises:
            DataError: A frame of one of them cannot be decoded.
        """
        from dsts_ray.data.geometry import enlarge, view_crop

        clips = np.empty(0)

        def choose(num_frames: int) -> np.ndarray:
            nonlocal clips
            clips = np.stack([self._clips(*window) for window in windows(num_frames)])
            return np.unique(clips)  # ascending, so that the decoder never goes back

        frames = enlarge(decode_row(row, choose, self.short_side), self.short_side)
        places = np.searchsorted(np.unique(clips), clips)
        views = [
            view_crop(chosen, size=self.crop_size, view=crop, num_crops=self.num_crops)
            for chosen in (frames[place] for window in places for place in window)
            for crop in range(self.num_crops)
        ]
        return np.stack(views).reshape(-1, *self.shape)

    def _clips(self, first: int, end: int) -> np.ndarray:
        """Frames of a window's clips, int64 [clips, time]."""
        return first + middle_frames(
            end - first,
            clip_length=self.num_frames,
            num_clips=self.num_clips,
            sampling=self.sampling,
            stride=self.frame_stride,
        )


def decode_row(
    row: Mapping[str, Any], choose: Callable[[int], np.ndarray], short_side: int | None
) -> np.ndarray:
    """Decode the chosen frames of a row's part of its video, see ``decode.decode_clip``.

    Raises:
        DataError: The video cannot be decoded.
    """
    source = video_source(row)
    display = None
    if row.get("rotation") is not None:  # of a manifest
        display = Display(row["width"], row["height"], row["rotation"])
    try:
        return decode_clip(
            source,
            choose,
            short_side=short_side,
            first_frame=row["start_frame"],
            end_frame=row["end_frame"],
            display=display,
        )
    except DataError as error:
        message = str(error).replace(name_of(source), video_name(row))
        raise DataError(message) from error
