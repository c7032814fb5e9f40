"""A video encoded anew: smaller, and with keyframes close enough to reach any frame quickly."""

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from dsts_ray.data.demo.encode import H264_OPTIONS, KEYFRAME_INTERVAL
from dsts_ray.errors import ConfigError, DataError

_RATE_WITHOUT = Fraction(25)  # where the container does not say; frames count, not their times


@dataclass(frozen=True, kw_only=True)
class Reencoding:
    """How to encode: H.264 of nearly constant quality in an mp4 file, without sound.

    The same video gives the same bytes, with the same version of PyAV. Frames are kept one by one,
    in order; their times are not.

    Attributes:
        short_side: Pixels of the shorter side, even; a smaller video keeps its size. None keeps it.
        keyframe_interval: Frames from one keyframe to the next at the most; scene cuts add some.
    """

    short_side: int | None = None
    keyframe_interval: int = KEYFRAME_INTERVAL

    def __post_init__(self) -> None:
        """Refuse what cannot be encoded."""
        if self.short_side is not None and (self.short_side < 16 or self.short_side % 2):
            raise ConfigError(f"short side is {self.short_side}: use an even number, 16 or more")
        if self.keyframe_interval < 1:
            raise ConfigError(f"keyframe interval is {self.keyframe_interval}: use 1 or more")

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the new video, both even; the aspect is kept to the nearest pixel."""
        scale = min(1.0, (self.short_side or min(width, height)) / min(width, height))
        return _even(width * scale), _even(height * scale)

    def apply(self, source: str | bytes) -> bytes:
        """Encode a video.

        Args:
            source: Path or encoded bytes.

        Raises:
            DataError: It cannot be decoded.
        """
        try:
            with av.open(
                io.BytesIO(source) if isinstance(source, bytes) else source,
                "r",
                metadata_errors="replace",
            ) as container:
                return self._encode(container, container.streams.video[0])
        except (FFmpegError, IndexError) as error:
            raise DataError(f"cannot be encoded anew: {error}") from error

    def _encode(self, container: InputContainer, video: VideoStream) -> bytes:
        video.codec_context.thread_count = 1
        rate = Fraction(video.average_rate or _RATE_WITHOUT).limit_denominator(1 << 16)
        content = io.BytesIO()
        options = {"fflags": "+bitexact"}
        reformatter = VideoReformatter()
        with av.open(content, "w", format="mp4", container_options=options) as output:
            stream = None
            for index, frame in enumerate(container.decode(video)):
                if stream is None:
                    stream = self._add_stream(output, frame, rate)
                picture = reformatter.reformat(
                    frame,
                    stream.width,
                    stream.height,
                    "yuv420p",
                    interpolation=Interpolation.BICUBIC,
                    threads=1,
                )
                picture.pts, picture.time_base = index, 1 / rate
                output.mux(stream.encode(picture))
            if stream is not None:
                output.mux(stream.encode())
        return content.getvalue()

    def _add_stream(
        self, output: OutputContainer, frame: av.VideoFrame, rate: Fraction
    ) -> VideoStream:
        stream = cast(VideoStream, output.add_stream("libx264", rate=rate, options=H264_OPTIONS))
        stream.width, stream.height = self.size(frame.width, frame.height)
        stream.pix_fmt, stream.gop_size = "yuv420p", self.keyframe_interval
        stream.codec_context.colorspace = frame.colorspace
        if frame.rotation:
            stream.set_display_rotation(frame.rotation)
        return stream


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
