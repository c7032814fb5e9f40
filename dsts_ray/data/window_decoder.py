"""What a decoding process does with videos to predict: any number of windows of each, in blocks.

A video is opened once for a group of its windows. Where a group does not decode, each window of it
is tried alone, so that a damaged place costs the windows over it and not the video.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dsts_ray.data.clip import ViewSpec, decode_row
from dsts_ray.data.decode import frame_rate, name_of
from dsts_ray.data.decoders import Rows
from dsts_ray.data.manifest import UNKNOWN_LABEL
from dsts_ray.data.source import video_name, video_source
from dsts_ray.data.watch import Watch
from dsts_ray.data.windows import SlidingWindows, Window
from dsts_ray.errors import DataError

NOT_SEEN: Window = (-1, -1)
"""Of a video that is refused as a whole."""

_FRAMES_OF_A_GROUP = 128
_NOTE_BITS = 32


class _Opened(NamedTuple):
    """A video at hand.

    Attributes:
        row: Of the table.
        name: Where it lies.
        content: For the decoder: path or bytes, and the part of the video.
        fps: 0 where the file does not say.
        windows: Over the part; None is all of it.
    """

    row: int
    name: str
    content: dict[str, Any]
    fps: float
    windows: list[Window] | None


class WindowDecoder:
    """Decodes parts of a list of videos."""

    def __init__(
        self,
        table: pa.Table,
        watch: Watch,
        *,
        spec: ViewSpec,
        sliding: SlidingWindows | None,
        parts: Sequence[int],
        videos_per_part: int,
        windows_per_block: int,
    ) -> None:
        """Take the videos.

        Args:
            table: All videos; columns of ``find.VIDEO_SCHEMA``.
            watch: Over this process.
            spec: Of a window's views.
            sliding: Windows over a video; None sees it whole.
            parts: Numbers of the parts to decode; part p has the videos from
                ``p * videos_per_part`` on.
            videos_per_part: So many; the last part of the table may have fewer.
            windows_per_block: At the most.
        """
        import dsts_ray.data.geometry  # noqa: F401 - torch, before a video's time is counted

        self.table, self.watch, self.spec, self.sliding = table, watch, spec, sliding
        self.parts, self.videos_per_part = parts, videos_per_part
        self.windows_per_block = windows_per_block
        self.group_size = max(1, _FRAMES_OF_A_GROUP // (spec.num_clips * spec.num_frames))

    def __call__(self, block: int) -> Iterator[Rows]:
        """Decode part ``parts[block]``.

        Yields:
            Blocks of rows, one a window: ``clip``, ``sample_id`` (row of the video), ``label``
            (unknown), ``reason``, ``start_frame``, ``end_frame`` (``NOT_SEEN`` for a video refused
            as a whole), ``fps``. All rows of a block have the same ``part``, ``block`` (its number
            within the part) and ``last``.
        """
        part = self.parts[block]
        first = part * self.videos_per_part
        rows = range(first, min(first + self.videos_per_part, len(self.table)))
        samples = chain.from_iterable(map(self._video, rows))
        number, following = 0, list(islice(samples, self.windows_per_block))
        while following:
            current, following = following, list(islice(samples, self.windows_per_block))
            place = {"part": part, "block": number, "last": not following}
            yield _stacked([sample | place for sample in current])
            number += 1

    def _video(self, row: int) -> Iterator[dict[str, Any]]:
        """Decode all windows of a video, in order."""
        try:
            with self.watch.over(_note(row, 0)):
                video = self._open(row)
        except DataError as error:
            yield self._sample(row, NOT_SEEN, 0.0, str(error))
            return
        if video.windows is None:
            yield from self._group(video, 1, None)
            return
        for first in range(0, len(video.windows), self.group_size):
            group = video.windows[first : first + self.group_size]
            yield from self._group(video, 1 + 2 * first, group)

    def _open(self, row: int) -> _Opened:
        listed = self.table.slice(row, 1).to_pylist()[0]
        name, source = video_name(listed), video_source(listed)
        content = {**listed, "path": source, "shard": None}
        try:
            fps = listed["fps"] or frame_rate(source)
            windows = None
            if self.sliding:
                windows = self.sliding.over(_num_frames(content), fps)
        except DataError as error:
            raise DataError(str(error).replace(name_of(source), name)) from error
        return _Opened(row, name, content, fps, windows)

    def _group(
        self, video: _Opened, note: int, windows: list[Window] | None
    ) -> Iterator[dict[str, Any]]:
        """Decode some windows at once, or one by one where that fails."""
        laid = windows or []

        def lay(num_frames: int) -> list[Window]:
            nonlocal laid
            laid = windows or [(0, num_frames)]
            if laid[-1][1] > num_frames:
                raise DataError(f"the decoder delivers {num_frames} frames where it had more")
            return laid

        try:
            with self.watch.over(_note(video.row, note)):
                views = self.spec.views_of(video.content, lay)
        except DataError as error:
            if windows and len(windows) > 1:
                for number, window in enumerate(windows):
                    yield from self._group(video, note + 1 + 2 * number, [window])
                return
            reason = str(error).replace(name_of(video.content["path"]), video.name)
            yield self._sample(video.row, self._shifted(video, windows), video.fps, reason)
            return
        for window, clip in zip(laid, views, strict=True):
            sample = self._sample(video.row, self._shifted(video, [window]), video.fps, "")
            yield sample | {"clip": clip}

    def _shifted(self, video: _Opened, windows: list[Window] | None) -> Window:
        """A window by frames of the file."""
        if not windows:
            return NOT_SEEN
        ((first, end),) = windows
        return video.content["start_frame"] + first, video.content["start_frame"] + end

    def _sample(self, row: int, window: Window, fps: float, reason: str) -> dict[str, Any]:
        return {
            "clip": np.zeros(self.spec.shape, np.uint8),
            "sample_id": row,
            "label": UNKNOWN_LABEL,
            "start_frame": window[0],
            "end_frame": window[1],
            "fps": fps,
            "reason": reason,
        }


def _note(row: int, number: int) -> int:
    """Number by which the watch knows what is decoded."""
    return row << _NOTE_BITS | number


def _num_frames(content: dict[str, Any]) -> int:
    """Frames in a video's part, as the decoder delivers them."""
    counts: list[int] = []

    def first_frame(num_frames: int) -> np.ndarray:
        counts.append(num_frames)
        return np.zeros(1, np.int64)

    decode_row(content, first_frame, None)
    return counts[-1]


def _stacked(samples: list[dict[str, Any]]) -> Rows:
    names = [name for name in samples[0] if name not in ("clip", "reason")]
    rows = {name: np.array([sample[name] for sample in samples]) for name in names}
    rows["reason"] = np.array([sample["reason"] for sample in samples], dtype=object)
    rows["clip"] = np.stack([sample["clip"] for sample in samples])
    return rows
