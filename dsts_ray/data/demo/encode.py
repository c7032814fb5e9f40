"""Writing frames as real video files with PyAV."""

from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

# Without a look-ahead libx264 writes the same bytes every time; with one it does not.
H264_OPTIONS = {
    "preset": "veryfast",
    "crf": "21",
    "threads": "1",
    "x264-params": "rc-lookahead=0:mbtree=0",
}
VP9_OPTIONS = {
    "deadline": "realtime",
    "cpu-used": "8",
    "crf": "26",
    "b": "0",
    "threads": "1",
    "lag-in-frames": "0",
}
KEYFRAME_INTERVAL = 12  # frames; short, so that random access decodes few frames


def write_h264(path: Path, frames: NDArray[np.uint8], *, fps: int) -> None:
    """Write ``frames`` (T H W C, RGB, even height and width) as H.264 yuv420p in an mp4 file.

    The file appears under its name only when it is complete.
    """
    _encode(path, frames, container="mp4", codec="libx264", fps=fps, options=H264_OPTIONS)


def write_vp9(path: Path, frames: NDArray[np.uint8], *, fps: int) -> None:
    """Write ``frames`` (T H W C, RGB, even height and width) as VP9 yuv420p in a webm file.

    The file appears under its name only when it is complete.
    """
    _encode(path, frames, container="webm", codec="libvpx-vp9", fps=fps, options=VP9_OPTIONS)


def _encode(
    path: Path,
    frames: NDArray[np.uint8],
    *,
    container: str,
    codec: str,
    fps: int,
    options: dict[str, str],
) -> None:
    partial = path.with_name(f".{path.name}.partial")
    _, height, width, _ = frames.shape
    reproducible = {"fflags": "+bitexact"}  # no random identifiers in the container
    with av.open(str(partial), "w", format=container, container_options=reproducible) as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=Fraction(fps), options=options))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.gop_size = KEYFRAME_INTERVAL
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode())
    partial.replace(path)
