"""A user's own videos: a folder a class, or a folder a split with a folder a class."""

from pathlib import PurePosixPath

from dsts_ray.data.formats.annotations import VIDEO_SUFFIXES, Annotations, annotation_table
from dsts_ray.data.formats.splits import SPLIT_NAMES, draw_splits
from dsts_ray.data.storage import join, list_files
from dsts_ray.errors import DataError


def read_annotations(root: str) -> Annotations:
    """Find ``ROOT/CLASS/video`` or ``ROOT/SPLIT/CLASS/video``.

    The folders are splits where all that hold a video are named train, val, validation or test.
    Else they are classes, and ``splits.draw_splits`` deals a fifth of each to "val". Below a class
    there may be further folders. Class names are numbered in sorted order over all splits. A video
    is a file with one of ``VIDEO_SUFFIXES``; names that begin with a dot are left out.

    Raises:
        DataError: The folder is missing or holds no video in a folder of its class.
    """
    names = [name for name in list_files(root) if name.lower().endswith(VIDEO_SUFFIXES)]
    parts = [PurePosixPath(name).parts for name in names]
    has_splits = bool(parts) and all(part[0] in SPLIT_NAMES for part in parts)
    depth = 2 if has_splits else 1
    misplaced = [name for name, part in zip(names, parts, strict=True) if len(part) <= depth]
    if misplaced or not names:
        layout = "ROOT/SPLIT/CLASS/video" if has_splits else "ROOT/CLASS/video"
        what = f"{misplaced[0]} lies in none" if misplaced else "there is no such file"
        raise DataError(
            f"{root}: every video must lie in a folder of its class, {layout}, and end in "
            f"{', '.join(VIDEO_SUFFIXES)}: {what}"
        )
    class_names = [part[depth - 1] for part in parts]
    classes = tuple(sorted(set(class_names)))
    index_of = {name: index for index, name in enumerate(classes)}
    labels = [index_of[name] for name in class_names]
    columns = {
        "video_id": names,
        "split": [SPLIT_NAMES[part[0]] for part in parts]
        if has_splits
        else draw_splits(names, labels),
        "label": labels,
        "group": names,
        "path": [join(root, name) for name in names],
    }
    return Annotations(annotation_table(columns), classes, (), root)
