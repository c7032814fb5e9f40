"""From a video file or its bytes to uint8 frames: decord first, PyAV for what decord refuses.

Frames are delivered as displayed: the container's rotation is applied, the sample aspect ratio is
not (pixels stay as stored, as in the usual data sets). Both decoders resize bilinearly, with
libswscale, while they decode.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import av
import decord
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from decord._ffi.base import DECORDLimitReachedError

from dsts_ray.errors import DataError

MIN_FRAMES = 2
MIN_DELIVERED_RATIO = 0.9

_MAX_ASPECT = 32
_AVI = b"RIFF"
_MAX_STATED_FRAMES = 2**28  # decord makes room for all of them, and aborts where it cannot

# Any frame that decord would replace by a copy of its neighbour is an error.
_FAULT_TOLERANCE = 1.0e-6
_DECORD_ERRORS = (
    decord.DECORDError,
    DECORDLimitReachedError,
    RuntimeError,
    AssertionError,
)

decord.logging.set_level(decord.logging.QUIET)


class VideoInfo(NamedTuple):
    """What a whole video delivers.

    Attributes:
        num_frames: Frames the decoder really delivered.
        fps: Average frames per second, 0 where the container does not say.
        width: Pixels as displayed, after rotation.
        height: Pixels as displayed, after rotation.
        rotation: Clockwise degrees from stored to displayed: 0, 90, 180 or 270.
    """

    num_frames: int
    fps: float
    width: int
    height: int
    rotation: int


class Display(NamedTuple):
    """How a video's frames are shown.

    Attributes:
        width: Pixels as displayed, after rotation.
        height: Pixels as displayed, after rotation.
        rotation: Clockwise degrees from stored to displayed: 0, 90, 180 or 270.
    """

    width: int
    height: int
    rotation: int


def name_of(source: str | bytes) -> str:
    """Call a video by its path or its size, as the errors here do."""
    return f"video of {len(source)} bytes" if isinstance(source, bytes) else source


def probe(source: str | bytes) -> VideoInfo:
    """Decode every frame of a video once and say what there is.

    A file cut short is refused when it delivers less than 90 % of the length its own header
    states; above that, what it delivers counts. A frame that cannot be decoded refuses the video.

    Args:
        source: Path or encoded bytes of the video.

    Raises:
        DataError: The file is missing, empty, truncated, damaged, holds no video stream or fewer
            than 2 frames.
    """
    with _opened(source) as (container, stream):
        num_frames, end_s, display = 0, 0.0, None
        for packet in container.demux():
            end_s = max(end_s, _end_s(packet, container))
            for frame in stream.decode(packet) if packet.stream is stream else ():
                num_frames += 1
                display = display or _display(frame, _rotation(frame))
        if display is None or num_frames < MIN_FRAMES:
            raise DataError(
                f"{name_of(source)}: holds {num_frames} frame(s), a video needs {MIN_FRAMES} "
                "or more"
            )
        stated_s, frame_s = _stated_duration_s(container, stream), end_s / num_frames
        if end_s + frame_s < MIN_DELIVERED_RATIO * stated_s:
            raise DataError(
                f"{name_of(source)}: truncated: ends after {end_s:.2f} s and {num_frames} frames, "
                f"its header states {stated_s:.2f} s"
            )
        fps = float(stream.average_rate or 0)
    return VideoInfo(num_frames, fps, display.width, display.height, display.rotation)


def frame_rate(source: str | bytes) -> float:
    """Average frames per second by the container, 0 where it does not say.

    Raises:
        DataError: The video cannot be opened.
    """
    with _opened(source) as (_, stream):
        return float(stream.average_rate or 0)


def stated_seconds(source: str | bytes) -> float:
    """Length by the container, 0 where it states none.

    Raises:
        DataError: The video cannot be opened.
    """
    with _opened(source) as (container, stream):
        return _stated_duration_s(container, stream)


def decode_clip(
    source: str | bytes,
    sample: Callable[[int], np.ndarray],
    *,
    short_side: int | None,
    first_frame: int = 0,
    end_frame: int | None = None,
    display: Display | None = None,
) -> np.ndarray:
    """Decode the chosen frames of a video; large ones are made smaller while decoding.

    Args:
        source: Path or encoded bytes of the video.
        sample: Gets the number of frames that the decoder delivers within
            [first_frame, end_frame) and returns indices into these, int64 [T]. It is called
            again when decord gives up and PyAV takes over, and where PyAV delivers fewer frames
            than the file has packets.
        short_side: Pixels of the shorter side where it would be longer; the longer keeps the
            aspect, rounded to the nearest even number. Smaller frames, and all with None, keep
            their size: libswscale enlarges more slowly than what comes after.
        first_frame: First frame of the annotated part.
        end_frame: End of the annotated part, exclusive; beyond the video's end it is clipped. None
            is the video's end.
        display: As ``probe`` found it. It spares opening a file that is not turned a second time,
            and decoding the first frame of one that is. None reads it off the video.

    Returns:
        Frames, uint8 [T, H, W, 3], RGB.

    Raises:
        DataError: The video cannot be opened or decoded (with the reason of each decoder that was
            tried), or the annotated part holds no frame.
    """

    def choose(num_frames: int) -> np.ndarray:
        end = num_frames if end_frame is None else min(end_frame, num_frames)
        if end <= first_frame:
            raise DataError(
                f"{name_of(source)}: the annotated part starts at frame {first_frame} and ends at "
                f"{end}, but the video delivers {num_frames} frames"
            )
        return first_frame + sample(end - first_frame)

    decord_reason = None
    if display is None or display.rotation or not _is_plain(source):
        display, decord_reason = _inspect(source, display)
    size = _resized(display.width, display.height, short_side)
    if decord_reason is None:
        try:
            return _decode_with_decord(source, choose, size)
        except _DECORD_ERRORS as error:
            decord_reason = _reason(error)
    try:
        return _decode_with_pyav(source, choose, size)
    except DataError as error:
        raise DataError(f"{error} (PyAV); decord: {decord_reason}") from error


def _is_plain(source: str | bytes) -> bool:
    """There is something, and it is no AVI file."""
    if isinstance(source, bytes):
        return len(source) > 0 and not source.startswith(_AVI)
    with suppress(OSError), Path(source).open("rb") as file:
        head = file.read(len(_AVI))
        return len(head) > 0 and head != _AVI
    return False


def _decode_with_decord(
    source: str | bytes, choose: Callable[[int], np.ndarray], size: tuple[int, int]
) -> np.ndarray:
    width, height = size
    with _file_of(source) as path:
        reader = decord.VideoReader(
            path,
            width=width,
            height=height,
            num_threads=1,
            fault_tol=_FAULT_TOLERANCE,  # pyright: ignore[reportArgumentType]
        )
        try:
            return reader.get_batch(choose(len(reader))).asnumpy()
        finally:
            del reader  # decord frees the file and its frame buffers here


@contextmanager
def _file_of(source: str | bytes) -> Iterator[str]:
    """Give bytes a path: a file in memory for as long as the context lasts.

    decord's process ends with a segmentation fault on some damaged mp4 files that it is given as
    bytes, and reads the same files by path.
    """
    if isinstance(source, str):
        yield source
        return
    with os.fdopen(os.memfd_create("video"), "wb") as file:
        file.write(source)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


def _decode_with_pyav(
    source: str | bytes, choose: Callable[[int], np.ndarray], size: tuple[int, int]
) -> np.ndarray:
    with _opened(source) as (container, stream):
        packets = (packet for packet in container.demux(stream) if packet.size)
        num_packets = sum(not packet.is_discard for packet in packets)
    indices = choose(num_packets)
    pictures, num_frames = _pictures(source, indices, size)
    if num_frames <= indices.max():  # packets without a frame, as beside packed B frames
        indices = choose(num_frames)
        pictures, _ = _pictures(source, indices, size)
    return np.stack([pictures[index] for index in indices.tolist()])


def _pictures(
    source: str | bytes, indices: np.ndarray, size: tuple[int, int]
) -> tuple[dict[int, np.ndarray], int]:
    """Decode until the last of these frames; returns what there is, and how many were decoded."""
    pictures: dict[int, np.ndarray] = {}
    reformatter = VideoReformatter()
    wanted, last, num_frames = set(indices.tolist()), int(indices.max()), 0
    with _opened(source) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            num_frames = index + 1
            if index in wanted:
                pictures[index] = _picture(frame, size, reformatter)
            if index == last:
                break
    return pictures, num_frames


@contextmanager
def _opened(source: str | bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video with PyAV, close it, and turn every failure on the way into a DataError."""
    if isinstance(source, str) and not Path(source).is_file():
        raise DataError(f"{source}: there is no such file")
    size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if size == 0:
        raise DataError(f"{name_of(source)}: is empty (zero bytes)")
    try:
        with av.open(
            io.BytesIO(source) if isinstance(source, bytes) else source,
            "r",
            metadata_errors="replace",
        ) as container:
            if not container.streams.video:
                kinds = ", ".join(sorted({stream.type for stream in container.streams}))
                raise DataError(f"{name_of(source)}: has no video stream (only: {kinds or 'none'})")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(
                    f"{name_of(source)}: no decoder knows the codec of its video stream"
                )
            stream.codec_context.thread_count = 1
            yield container, stream
    except FFmpegError as error:
        raise DataError(f"{name_of(source)}: does not decode: {_reason(error)}") from error


def _inspect(source: str | bytes, known: Display | None) -> tuple[Display, str | None]:
    """Find out how a video is shown, and what decord would get wrong without a word."""
    with _opened(source) as (container, stream):
        if known is None:
            frame = next(container.decode(stream), None)
            if frame is None:
                raise DataError(f"{name_of(source)}: no frame decodes")
            display = _display(frame, _rotation(frame))
        else:
            display = _display(stream.codec_context, known.rotation)
        short, long = sorted((display.width, display.height))
        if not 0 < long <= _MAX_ASPECT * short:
            raise DataError(f"{name_of(source)}: frames of {display.width} x {display.height}")
        return display, _decord_weakness(container, display.rotation)


def _decord_weakness(container: InputContainer, rotation: int) -> str | None:
    if container.format.name == "avi":
        return "not tried: a truncated AVI file ends its process"
    if (stated := container.streams.video[0].frames) >= _MAX_STATED_FRAMES:
        return f"not tried: its process ends over {stated} stated frames"
    if rotation and "mov" not in container.format.name:
        return "not tried: it ignores the rotation of this container"
    return None


def _rotation(frame: av.VideoFrame) -> int:
    return -90 * round(frame.rotation / 90) % 360


def _display(stored: av.VideoFrame | VideoCodecContext, rotation: int) -> Display:
    width, height = stored.width, stored.height
    if rotation in (90, 270):
        width, height = height, width
    return Display(width, height, rotation)


def _picture(
    frame: av.VideoFrame, size: tuple[int, int], reformatter: VideoReformatter
) -> np.ndarray:
    quarter_turns = round(frame.rotation / 90) % 4
    width, height = size if quarter_turns % 2 == 0 else size[::-1]
    picture = reformatter.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.BILINEAR, threads=1
    )
    return np.rot90(picture.to_ndarray(), quarter_turns)


def _resized(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    if short_side is None or min(width, height) <= short_side:
        return width, height
    long_side = 2 * round(max(width, height) * short_side / min(width, height) / 2)
    long_side = max(long_side, short_side)
    return (short_side, long_side) if width < height else (long_side, short_side)


def _end_s(packet: av.Packet, container: InputContainer) -> float:
    start = packet.dts if packet.pts is None else packet.pts
    if start is None:
        return 0.0
    first_s = (container.start_time or 0) / av.time_base
    return float((start + (packet.duration or 0)) * packet.time_base) - first_s


def _stated_duration_s(container: InputContainer, stream: VideoStream) -> float:
    """Length by the header, 0 where it states none."""
    if container.format.name == "avi" and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # its duration is a guess by file size
    return (container.duration or 0) / av.time_base


def _reason(error: BaseException) -> str:
    """First line of a decoder's message, without time stamps and places in its source."""
    line = str(error).split("\n", 1)[0].rsplit("] ", 1)[-1]
    return re.sub(r"^\S+\.cc:\d+: ", "", line) or type(error).__name__
