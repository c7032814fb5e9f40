"""A procedural Diving48: rendered dives in the on-disk layout of Diving48 V2."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsts_ray.data.demo.dive import Dive
from dsts_ray.data.demo.dive_scene import draw_venue, render_dive
from dsts_ray.data.demo.encode import write_h264
from dsts_ray.data.demo.release import (
    balanced_labels,
    check_absent,
    check_parameters,
    clip_generators,
    run_all,
    write_json,
)

FPS = 25
CLIPS_PER_SOURCE = 8
SPLITS = {"train": 0, "test": 1}
SOURCE_STREAM, LABEL_STREAM = 10, 20  # added to the split in the entropy of other draws

CLASSES = """
Forward+15som+NoTwis+PIKE Forward+15som+NoTwis+TUCK
Forward+Dive+NoTwis+PIKE  Forward+Dive+NoTwis+STR
Back+15som+05Twis+FREE    Back+15som+15Twis+FREE
Reverse+15som+NoTwis+PIKE Armstand+2som+NoTwis+TUCK
Back+25som+NoTwis+TUCK    Inward+Dive+NoTwis+PIKE
Forward+25som+NoTwis+PIKE Back+Dive+NoTwis+TUCK
Back+15som+25Twis+FREE    Reverse+15som+NoTwis+TUCK
Armstand+2som+NoTwis+PIKE Inward+15som+NoTwis+TUCK
Forward+25som+NoTwis+TUCK Back+15som+NoTwis+PIKE
Back+15som+NoTwis+TUCK    Inward+15som+NoTwis+PIKE
Reverse+15som+05Twis+FREE Reverse+15som+15Twis+FREE
Reverse+15som+25Twis+FREE Back+25som+NoTwis+PIKE
Reverse+25som+NoTwis+PIKE Reverse+25som+NoTwis+TUCK
Inward+25som+NoTwis+PIKE  Inward+25som+NoTwis+TUCK
Forward+15som+1Twis+FREE  Forward+15som+2Twis+FREE
Forward+25som+1Twis+PIKE  Forward+25som+2Twis+PIKE
Back+25som+15Twis+PIKE    Back+25som+25Twis+PIKE
Back+Dive+NoTwis+PIKE     Reverse+Dive+NoTwis+PIKE
Reverse+Dive+NoTwis+TUCK  Inward+Dive+NoTwis+TUCK
Forward+1som+NoTwis+PIKE  Forward+1som+NoTwis+TUCK
Back+2som+15Twis+FREE     Back+2som+25Twis+FREE
Armstand+3som+NoTwis+PIKE Armstand+3som+NoTwis+TUCK
Forward+35som+NoTwis+PIKE Forward+35som+NoTwis+TUCK
Back+35som+NoTwis+PIKE    Back+35som+NoTwis+TUCK
"""
# Every prefix of 8 or more holds pairs that differ in body shape alone (0 and 1), in somersaults
# alone (0 and 2), in twists alone (4 and 5) and in the direction of rotation alone (0 and 6).
VOCABULARY: tuple[Dive, ...] = tuple(Dive(*name.split("+")) for name in CLASSES.split())


class Clip(NamedTuple):
    """What it takes to render one video of the data set."""

    path: Path
    label: int
    num_frames: int
    size: int
    seed: int
    split: int
    number: int


def write_diving48(
    root: Path,
    *,
    num_classes: int = 16,
    num_train_clips: int = 640,
    num_test_clips: int = 320,
    size: int = 112,
    min_frames: int = 32,
    max_frames: int = 64,
    seed: int = 0,
    num_processes: int = 2,
) -> None:
    """Render a data set of dives into ``root`` in the layout of Diving48 V2.

    Writes ``rgb/<source>_<number>.mp4`` (H.264, 25 frames per second), ``Diving48_vocab.json``,
    ``Diving48_V2_test.json`` and, last, ``Diving48_V2_train.json``: where that one exists, the
    data set is complete. The same seed gives the same pixels with any number of processes.
    A script that calls this with more than one process needs the ``__name__ == "__main__"`` guard.

    Args:
        root: Folder of the data set, made if missing.
        num_classes: Length of the vocabulary, 2 to 48.
        num_train_clips: At least ``num_classes``; classes are balanced.
        num_test_clips: At least ``num_classes``; classes are balanced, sources are unseen.
        size: Height and width, even, 64 to 720 pixels.
        min_frames: Shortest clip, at least 8 frames.
        max_frames: Longest clip, at least ``min_frames`` and at most 1000 frames.
        seed: Not negative.
        num_processes: Processes that render and encode, at least 1.

    Raises:
        DataError: A parameter is out of range, or ``root`` holds a finished data set.
    """
    check_parameters(
        num_classes=num_classes,
        max_classes=len(VOCABULARY),
        num_clips={"num_train_clips": num_train_clips, "num_test_clips": num_test_clips},
        size=size,
        min_frames=min_frames,
        max_frames=max_frames,
        seed=seed,
        num_processes=num_processes,
    )
    root = Path(root)
    last = root / "Diving48_V2_train.json"
    check_absent(last)
    (root / "rgb").mkdir(parents=True, exist_ok=True)
    clips = {}
    for split, count in (("test", num_test_clips), ("train", num_train_clips)):
        labels = balanced_labels(count, num_classes, [seed, LABEL_STREAM + SPLITS[split]])
        clips[split] = [
            plan_clip(root, split, index, int(label), size, (min_frames, max_frames), seed)
            for index, label in enumerate(labels)
        ]
    run_all(write_clip, clips["test"] + clips["train"], num_processes)
    write_json(root / "Diving48_vocab.json", [list(dive) for dive in VOCABULARY[:num_classes]])
    for split in ("test", "train"):
        write_json(root / f"Diving48_V2_{split}.json", [_annotate(clip) for clip in clips[split]])


def plan_clip(
    root: Path,
    split: str,
    index: int,
    label: int,
    size: int,
    frame_range: tuple[int, int],
    seed: int,
) -> Clip:
    """Name clip ``index`` of ``split`` and draw its length from ``frame_range``, both included."""
    source, number = divmod(index, CLIPS_PER_SOURCE)
    rng, _ = clip_generators(seed, SPLITS[split], index)
    return Clip(
        path=root / "rgb" / f"{split}_{source:04d}_{number:05d}.mp4",
        label=label,
        num_frames=int(rng.integers(*frame_range, endpoint=True)),
        size=size,
        seed=seed,
        split=SPLITS[split],
        number=index,
    )


def render_clip(clip: Clip) -> NDArray[np.uint8]:
    """Render the frames (T H W C) of ``clip``."""
    source = clip.number // CLIPS_PER_SOURCE
    venue = draw_venue(np.random.default_rng([clip.seed, SOURCE_STREAM + clip.split, source]))
    _, rng = clip_generators(clip.seed, clip.split, clip.number)
    return render_dive(
        VOCABULARY[clip.label], venue, rng, num_frames=clip.num_frames, size=clip.size
    )


def write_clip(clip: Clip) -> None:
    """Render ``clip`` and write it as H.264."""
    write_h264(clip.path, render_clip(clip), fps=FPS)


def _annotate(clip: Clip) -> dict[str, str | int]:
    return {
        "vid_name": clip.path.stem,
        "label": clip.label,
        "start_frame": 0,
        "end_frame": clip.num_frames,
    }
