"""Tiny real videos whose pictures say which frame they are."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from av.container import OutputContainer

from dsts_ray.data.manifest import SCHEMA, Manifest

NUM_BITS = 8
AUDIO_RATE = 16000
_BESIDE = Path(__file__).parents[3] / "shared" / "videos"
OTHER_VIDEOS = Path(os.environ.get("DSTS_TEST_VIDEOS", _BESIDE))
"""Folder with videos from elsewhere; tests that want them are skipped where it is missing."""

CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
CODECS |= {".avi": "mpeg4"}


def draw_frame(index: int, *, width: int, height: int) -> np.ndarray:
    """Draw eight vertical bars, dark and light, that spell the index in binary, highest bit left.

    The lower half is tinted red, so that a frame also shows which way up it is.
    """
    bits = [(index >> bit) & 1 for bit in reversed(range(NUM_BITS))]
    bars = np.repeat(np.array(bits, dtype=np.uint8), width // NUM_BITS)
    bars = np.pad(bars, (0, width - len(bars)), mode="edge")
    frame = np.broadcast_to((40 + 160 * bars)[None, :, None], (height, width, 3)).copy()
    frame[height // 2 :, :, 0] += 40
    return frame


def read_index(frame: np.ndarray) -> int:
    """Read the index from a frame, also after it was resized."""
    bar = frame.shape[1] / NUM_BITS
    row = frame[frame.shape[0] // 4, :, 1].astype(int)
    bits = [row[int((position + 0.5) * bar)] > 120 for position in range(NUM_BITS)]
    return sum(int(bit) << (NUM_BITS - 1 - place) for place, bit in enumerate(bits))


def write_video(
    path: Path,
    *,
    num_frames: int = 12,
    width: int = 64,
    height: int = 48,
    rotation: int = 0,
    fps: int = 10,
    keyframe_interval: int = 6,
    codec: str | None = None,
    fast_start: bool = False,
    audio_s: float = 0.0,
) -> Path:
    """Write a video, its container and codec by the suffix of its name.

    Args:
        path: File to write; its folder is made.
        num_frames: At most 256.
        width: Stored pixels, even.
        height: Stored pixels, even.
        rotation: Counterclockwise degrees by which a player turns the stored picture.
        fps: Frames per second.
        keyframe_interval: Frames from one keyframe to the next.
        codec: Encoder other than the container's usual one.
        fast_start: Put the header of an mp4 before its frames.
        audio_s: Seconds of silence beside the pictures, each packet as late as its frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if fast_start else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=Fraction(fps))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.gop_size = keyframe_interval
        if rotation:
            stream.set_display_rotation(rotation)
        audio = add_audio(container) if audio_s else None
        for index in range(num_frames):
            picture = draw_frame(index, width=width, height=height)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if audio and index < audio_s * fps:
                encode_silence(container, audio, num_samples=AUDIO_RATE // fps)
        container.mux(stream.encode())
        if audio:
            container.mux(audio.encode())
    return path


def add_audio(container: OutputContainer) -> av.AudioStream:
    """Add an AAC stream with one channel."""
    stream = container.add_stream("aac", rate=AUDIO_RATE)
    stream.layout = "mono"
    return stream


def encode_silence(container: OutputContainer, stream: av.AudioStream, *, num_samples: int) -> None:
    """Append silence to an audio stream."""
    frame = av.AudioFrame(format="fltp", layout="mono", samples=num_samples)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    frame.sample_rate = AUDIO_RATE
    container.mux(stream.encode(frame))


def write_audio(path: Path) -> Path:
    """Write half a second of silence, and no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = add_audio(container)
        encode_silence(container, stream, num_samples=AUDIO_RATE // 2)
        container.mux(stream.encode())
    return path


def truncate(path: Path, ratio: float) -> Path:
    """Keep the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * ratio)])
    return path


def manifest(*videos: tuple[str, int, str], folder: str = "/videos") -> Manifest:
    """A manifest of videos by name, label and split; there need be no files."""
    same = {"group": "g", "shard": None, "row": None, "start_frame": 0, "end_frame": 9}
    same |= {"num_frames": 9, "fps": 12.0, "width": 64, "height": 64, "rotation": 0}
    rows = [
        {**same, "video_id": name, "label": label, "split": split, "path": f"{folder}/{name}.mp4"}
        for name, label, split in videos
    ]
    return Manifest(pa.Table.from_pylist(rows, SCHEMA), ("dive", "jump"))
