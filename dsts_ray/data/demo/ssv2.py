"""A procedural Something-Something v2: hands and objects in the release's on-disk layout."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dsts_ray.data.demo.encode import write_vp9
from dsts_ray.data.demo.hand_scene import ANGULAR, ROUND, render_interaction
from dsts_ray.data.demo.release import (
    balanced_labels,
    check_absent,
    check_parameters,
    clip_generators,
    run_all,
    write_json,
    write_text,
)
from dsts_ray.errors import DataError

FPS = 12
SPLITS = {"train": 0, "validation": 1, "test": 2}
LABEL_STREAM = 20  # added to the split in the entropy of labels
NAMINGS = {"20bn": "something-something-v2-{}.json", "qualcomm": "labels/{}.json"}
VIDEO_FOLDER = "20bn-something-something-v2"


class Action(NamedTuple):
    """One class: its template, the motion behind it and the shapes that take part."""

    template: str
    motion: str
    direction: float
    shapes: tuple[str, ...] = ANGULAR + ROUND
    num_objects: int = 1


# Pairs that differ in direction, in where the hand is, or in the object's shape.
ACTIONS: tuple[Action, ...] = (
    Action("Pushing [something] from left to right", "push", 1),
    Action("Pushing [something] from right to left", "push", -1),
    Action("Pulling [something] from left to right", "pull", 1),
    Action("Pulling [something] from right to left", "pull", -1),
    Action("Moving [something] towards the camera", "approach", 1),
    Action("Moving [something] away from the camera", "approach", -1),
    Action("Letting [something] roll down a slanted surface", "descend", 1, ROUND),
    Action(
        "Putting [something] that can't roll onto a slanted surface, so it slides down",
        "descend",
        -1,
        ANGULAR,
    ),
    Action("Moving [something] up", "lift", 1),
    Action("Moving [something] down", "lift", -1),
    Action("Moving [something] and [something] closer to each other", "meet", 1, num_objects=2),
    Action("Moving [something] and [something] away from each other", "meet", -1, num_objects=2),
    Action("Turning the camera right while filming [something]", "turn_camera", 1),
    Action("Turning the camera left while filming [something]", "turn_camera", -1),
)


class Clip(NamedTuple):
    """What it takes to render one video of the data set."""

    path: Path
    label: int
    shapes: tuple[str, ...]
    num_frames: int
    size: int
    seed: int
    split: int
    number: int


def write_ssv2(
    root: Path,
    *,
    num_classes: int = 8,
    num_train_clips: int = 320,
    num_validation_clips: int = 160,
    num_test_clips: int = 80,
    size: int = 96,
    min_frames: int = 24,
    max_frames: int = 48,
    seed: int = 0,
    num_processes: int = 2,
    naming: Literal["20bn", "qualcomm"] = "20bn",
) -> None:
    """Render a data set of hands and objects into ``root`` in the layout of SSv2.

    Writes ``20bn-something-something-v2/<id>.webm`` (VP9, 12 frames per second, 4:3) and the
    labels, test, validation and, last, train JSON: where that one exists, the data set is complete.
    The same seed gives the same pixels with any number of processes. A script that calls this with
    more than one process needs the ``__name__ == "__main__"`` guard.

    Args:
        root: Folder of the data set, made if missing.
        num_classes: Templates used, 2 to 14.
        num_train_clips: At least ``num_classes``; classes are balanced.
        num_validation_clips: At least ``num_classes``; classes are balanced.
        num_test_clips: At least ``num_classes``; classes are balanced.
        size: Height, even, 64 to 720 pixels.
        min_frames: Shortest clip, at least 8 frames.
        max_frames: Longest clip, at least ``min_frames`` and at most 1000 frames.
        seed: Not negative.
        num_processes: Processes that render and encode, at least 1.
        naming: ``20bn`` names the files ``something-something-v2-train.json`` and leaves the test
            answers out; ``qualcomm`` names them ``labels/train.json`` and adds
            ``labels/test-answers.csv``.

    Raises:
        DataError: A parameter is out of range, or ``root`` holds a finished data set.
    """
    counts = {"train": num_train_clips, "validation": num_validation_clips, "test": num_test_clips}
    check_parameters(
        num_classes=num_classes,
        max_classes=len(ACTIONS),
        num_clips={f"num_{split}_clips": count for split, count in counts.items()},
        size=size,
        min_frames=min_frames,
        max_frames=max_frames,
        seed=seed,
        num_processes=num_processes,
    )
    if naming not in NAMINGS:
        raise DataError(f"naming is {naming!r}; allowed are {', '.join(NAMINGS)}")
    root = Path(root)
    for pattern in NAMINGS.values():
        check_absent(root / pattern.format("train"))
    (root / VIDEO_FOLDER).mkdir(parents=True, exist_ok=True)
    clips = plan_clips(root, counts, num_classes, size, (min_frames, max_frames), seed)
    run_all(write_clip, [clip for split in SPLITS for clip in clips[split]], num_processes)
    _write_annotations(root, naming, clips, num_classes)


def plan_clips(
    root: Path,
    counts: dict[str, int],
    num_classes: int,
    size: int,
    frame_range: tuple[int, int],
    seed: int,
) -> dict[str, list[Clip]]:
    """Draw label, id, shapes and length (``frame_range``, both included) of every clip."""
    ids = iter(np.random.default_rng([seed, LABEL_STREAM]).permutation(sum(counts.values())) + 1)
    clips: dict[str, list[Clip]] = {}
    for split, count in counts.items():
        labels = balanced_labels(count, num_classes, [seed, LABEL_STREAM + 1 + SPLITS[split]])
        clips[split] = []
        for index, label in enumerate(labels.tolist()):
            rng, _ = clip_generators(seed, SPLITS[split], index)
            action = ACTIONS[label]
            clip = Clip(
                path=root / VIDEO_FOLDER / f"{next(ids)}.webm",
                label=label,
                shapes=tuple(rng.choice(action.shapes, size=action.num_objects).tolist()),
                num_frames=int(rng.integers(*frame_range, endpoint=True)),
                size=size,
                seed=seed,
                split=SPLITS[split],
                number=index,
            )
            clips[split].append(clip)
    return clips


def render_clip(clip: Clip) -> NDArray[np.uint8]:
    """Render the frames (T H W C) of ``clip``."""
    action = ACTIONS[clip.label]
    _, rng = clip_generators(clip.seed, clip.split, clip.number)
    return render_interaction(
        action.motion,
        action.direction,
        list(clip.shapes),
        rng,
        num_frames=clip.num_frames,
        height=clip.size,
        width=clip.size * 4 // 3 // 2 * 2,
    )


def write_clip(clip: Clip) -> None:
    """Render ``clip`` and write it as VP9."""
    write_vp9(clip.path, render_clip(clip), fps=FPS)


def _write_annotations(
    root: Path, naming: str, clips: dict[str, list[Clip]], num_classes: int
) -> None:
    """Write labels, test (with the answers, where they are published), validation, train."""
    pattern = NAMINGS[naming]
    templates = [_without_brackets(action.template) for action in ACTIONS[:num_classes]]
    (root / pattern).parent.mkdir(exist_ok=True)
    labels = {template: str(index) for index, template in enumerate(templates)}
    write_json(root / pattern.format("labels"), labels)
    if naming == "qualcomm":
        answers = [f"{clip.path.stem};{templates[clip.label]}\n" for clip in clips["test"]]
        write_text(root / "labels" / "test-answers.csv", "".join(answers))
    write_json(root / pattern.format("test"), [{"id": clip.path.stem} for clip in clips["test"]])
    for split in ("validation", "train"):
        write_json(root / pattern.format(split), [_annotate(clip) for clip in clips[split]])


def _annotate(clip: Clip) -> dict[str, str | list[str]]:
    template = ACTIONS[clip.label].template
    placeholders = [f"a {shape}" for shape in clip.shapes]
    caption = template
    for placeholder in placeholders:
        caption = caption.replace("[something]", placeholder, 1)
    return {
        "id": clip.path.stem,
        "label": caption[0].lower() + caption[1:],
        "template": template,
        "placeholders": placeholders,
    }


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")
