"""Damaged copies of video files, and a process that decodes them and says how each ended.

    python -m tests.support.mutate FOLDER FIRST LAST

prints a line of JSON for each way of decoding each of the damaged files with these numbers; what
ends or holds up this process is in the line that is missing.
"""

import json
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsts_ray.data.decode import Display, decode_clip, probe
from dsts_ray.data.demo.encode import write_h264, write_vp9
from dsts_ray.data.sampling import middle_frames
from dsts_ray.errors import DataError
from tests.support.videos import draw_frame, write_video

MUTATIONS = ("flipped bits", "overwritten bytes", "damaged header", "truncated", "swapped header")
MUTATIONS += ("zeros", "missing bytes", "inserted bytes")

_HEADER_BYTES = 600


def write_originals(folder: Path) -> None:
    """Write a video of each container that the demo's and the tests' writers know."""
    write = partial(write_video, num_frames=24, width=112, height=96)
    for suffix in (".mp4", ".mov", ".mkv", ".webm", ".avi"):
        write(folder / f"plain{suffix}")
    write(folder / "fast_start.mp4", fast_start=True)
    write(folder / "with_sound.mp4", audio_s=2)
    frames = np.stack([draw_frame(index, width=112, height=96) for index in range(24)])
    write_h264(folder / "demo.mp4", frames, fps=25)
    write_vp9(folder / "demo.webm", frames, fps=12)


def mutate(content: bytes, number: int, headers: list[bytes]) -> tuple[str, bytes]:
    """Damage a file in a way that its number decides."""
    draw = random.Random(number)
    kind = MUTATIONS[number % len(MUTATIONS)]
    data, size = bytearray(content), len(content)
    first = draw.randrange(size)
    match kind:
        case "flipped bits":
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(size)] ^= 1 << draw.randrange(8)
        case "overwritten bytes":
            for _ in range(1 + size // draw.choice((50, 200, 1000))):
                data[draw.randrange(size)] = draw.randrange(256)
        case "damaged header":
            for _ in range(draw.randint(1, 16)):
                data[draw.randrange(min(size, _HEADER_BYTES))] = draw.randrange(256)
        case "truncated":
            del data[first:]
        case "swapped header":
            num_bytes = draw.choice((16, 64, 256, 1024))
            data[:num_bytes] = draw.choice(headers)[:num_bytes]
        case "zeros":
            last = min(size, first + draw.choice((16, 256, 4096)))
            data[first:last] = bytes(last - first)
        case "missing bytes":
            del data[first : first + draw.choice((1, 7, 100, 2000))]
        case "inserted bytes":
            data[first:first] = draw.randbytes(draw.choice((1, 7, 100, 2000)))
    return kind, bytes(data)


def main(folder: Path, first: int, last: int) -> None:
    """Decode the damaged files ``first`` to ``last`` - 1 in every way."""
    originals = sorted(path for path in folder.iterdir() if path.is_file())
    contents = [path.read_bytes() for path in originals]
    for number in range(first, last):
        place = number // len(MUTATIONS) % len(originals)
        kind, content = mutate(contents[place], number, contents)
        damaged = folder / "damaged" / f"{number}{originals[place].suffix}"
        damaged.parent.mkdir(exist_ok=True)
        damaged.write_bytes(content)
        ways: dict[str, Callable[[], Any]] = {
            "probe": partial(probe, str(damaged)),
            "probe bytes": partial(probe, content),
            "decode": partial(
                decode_clip, str(damaged), _middle, short_side=64, display=Display(64, 48, 0)
            ),
            "decode bytes": partial(decode_clip, content, _middle, short_side=64),
        }
        for name, way in ways.items():
            told = [number, originals[place].name, kind, name, _outcome(way)]
            print(json.dumps(told), flush=True)
        damaged.unlink()


def _middle(num_frames: int) -> np.ndarray:
    return middle_frames(num_frames, clip_length=8, sampling="segments")[0]


def _outcome(way: Callable[[], Any]) -> str:
    try:
        way()
    except DataError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - whatever else escapes is what is looked for
        return f"{type(error).__name__}: {error}"
    return "delivered"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
