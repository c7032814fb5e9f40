"""A user's own videos: a comma-separated list of paths and labels."""

import csv
import hashlib
from collections import defaultdict
from pathlib import Path

from dsts_ray.data.formats.annotations import Annotations, VideoRow
from dsts_ray.errors import DataError

_HEADERS = (["path", "label"], ["path", "label", "split"])
_SPLITS = ("train", "val", "test")
_VAL_SHARE = 5


def read_annotations(root: Path) -> Annotations:
    """Read a file of ``path,label`` or ``path,label,split`` lines; a header line is optional.

    Paths are relative to the file. Labels are class names, numbered in sorted order, or integers
    throughout, which then are the indices themselves.

    Without a split column, of a class's n videos n // 5 go to "val", at least one where the class
    has two or more, and the rest to "train". Which ones depends on the paths as written alone. A
    class of one video goes to "train", so that a list of such classes has no "val" at all.

    Args:
        root: The list itself.

    Raises:
        DataError: The file is missing, empty or no text, a line has other columns, a label is
            empty or negative, or a split has another name.
    """
    lines = _read_lines(root)
    labels, classes = _number_labels(root, [line[1] for line in lines])
    paths = [line[0] for line in lines]
    splits = [line[2] for line in lines] if len(lines[0]) == 3 else _draw_splits(paths, labels)
    for split in splits:
        if split not in _SPLITS:
            raise DataError(f"{root}: unknown split {split!r}, allowed are {', '.join(_SPLITS)}")
    rows = [
        VideoRow(video_id=path, split=split, label=label, group=path, path=root.parent / path)
        for path, split, label in zip(paths, splits, labels, strict=True)
    ]
    return Annotations(rows, classes)


def _read_lines(path: Path) -> list[list[str]]:
    if not path.is_file():
        raise DataError(f"{path} is not a file; --root must name the list of paths and labels")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a comma-separated text file: {error}") from error
    if lines and [cell.lower() for cell in lines[0]] in _HEADERS:
        lines = lines[1:]
    if not lines:
        raise DataError(f"{path} lists no video")
    for line in lines:
        if len(line) not in (2, 3) or len(line) != len(lines[0]) or not all(line):
            raise DataError(
                f"{path}: every line must be 'path,label' or every line 'path,label,split', "
                f"one is {','.join(line)!r}"
            )
    return lines


def _number_labels(path: Path, labels: list[str]) -> tuple[list[int], tuple[str, ...]]:
    try:
        numbers = [int(label) for label in labels]
    except ValueError:
        classes = tuple(sorted(set(labels)))
        index_of = {name: index for index, name in enumerate(classes)}
        return [index_of[label] for label in labels], classes
    if min(numbers) < 0:
        raise DataError(f"{path}: label {min(numbers)} is negative, labels are numbered from 0")
    return numbers, tuple(str(number) for number in range(max(numbers) + 1))


def _draw_splits(paths: list[str], labels: list[int]) -> list[str]:
    members: defaultdict[int, list[str]] = defaultdict(list)
    for path, label in zip(paths, labels, strict=True):
        members[label].append(path)
    held_out: set[str] = set()
    for names in members.values():
        names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
        share = max(len(names) // _VAL_SHARE, 1) if len(names) > 1 else 0
        held_out.update(names[:share])
    return ["val" if path in held_out else "train" for path in paths]
