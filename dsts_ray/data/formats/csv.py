"""A user's own videos: a list of paths and labels, or one list a split."""

import csv
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from dsts_ray.data.formats.annotations import VIDEO_SUFFIXES, Annotations, annotation_table
from dsts_ray.data.formats.splits import SPLIT_NAMES, SPLITS, draw_splits
from dsts_ray.data.manifest import UNKNOWN_LABEL
from dsts_ray.data.storage import file_exists, join, list_files, parent, read_bytes
from dsts_ray.errors import DataError

_HEADERS = (["path", "label"], ["path", "label", "split"])
_LIST_SUFFIXES = (".csv", ".txt", ".list")
_WORD = re.compile(r"[A-Za-z]+")


class _Line(NamedTuple):
    path: str
    label: str
    split: str | None = None


def read_annotations(root: str, videos: str | None = None) -> Annotations:
    """Read a list of videos, or a folder with one list a split.

    A list is told by its lines, not by its name:

    - with a comma in every line it holds ``path,label`` or ``path,label,split``; a header line of
      these words may be there, and a path with a comma stands in double quotes;
    - with a comma in no line it is a list as of mmaction2 and VideoMAE, ``path label``. The label
      is what follows the last white space, so paths may hold spaces;
    - where each of these lines has three words and the last two are integers, it is a list as of
      TSM, ``path num_frames label``. The number of frames is not used: frames are counted.

    Paths are relative to the list, or to ``videos``, as to mmaction2's ``data_prefix``. A path
    without a video's suffix, as TSM writes them, stands for the first of ``VIDEO_SUFFIXES`` with
    which there is a file. Labels are class names, numbered in sorted order, or integers throughout,
    which then are the indices themselves.

    A folder as ``root`` holds at most one list for each split, whose name has one of the words
    train, val, validation, test (``sthv2_train_list_videos.txt``, ``val.csv``), and two columns.
    Where no split is named, ``splits.draw_splits`` deals a fifth of each class to "val".

    Args:
        root: The list, or the folder of lists.
        videos: Folder that paths are relative to; None is the list's.

    Raises:
        DataError: A list is missing, empty or no text, its lines have different columns, a label is
            empty, or a split has another name.
    """
    lists = {None: root} if file_exists(root) else _find_lists(root)
    lines: list[_Line] = []
    for split, path in lists.items():
        for line in _read_lines(path):
            if line.split is not None and split is not None:
                raise DataError(f"{path}: its name states the split, so a third column must not")
            lines.append(line._replace(split=split) if split else line)
    labels, faults, classes = _number_labels([line.label for line in lines])
    names = [line.path for line in lines]
    stated = [line.split for line in lines if line.split is not None]
    folder = videos or (parent(root) if None in lists else root)
    columns = {
        "video_id": names,
        "split": stated or draw_splits(names, labels),
        "label": labels,
        "group": names,
        "path": [_with_suffix(join(folder, name)) for name in names],
        "fault": faults,
    }
    return Annotations(annotation_table(columns), classes, tuple(lists.values()))


def _find_lists(root: str) -> dict[str | None, str]:
    found: dict[str | None, str] = {}
    for name in sorted(list_files(root)):
        if "/" in name or PurePosixPath(name).suffix not in _LIST_SUFFIXES:
            continue
        words = {word.lower() for word in _WORD.findall(name)}
        for split in {SPLIT_NAMES[word] for word in words & SPLIT_NAMES.keys()}:
            if split in found:
                raise DataError(
                    f"both {found[split]} and {name} are lists of the split {split!r}: leave one "
                    f"in {root}, or give a list as --root"
                )
            found[split] = join(root, name)
    if not found:
        raise DataError(
            f"{root} holds no list of videos: a file whose name has one of the words "
            f"{', '.join(SPLIT_NAMES)} and ends in {', '.join(_LIST_SUFFIXES)}"
        )
    return found


def _read_lines(path: str) -> list[_Line]:
    try:
        text = read_bytes(path).decode("utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        with_comma = sum("," in line for line in lines)
        if with_comma == 0:
            return _split_words(path, lines)
        return _split_cells(path, lines, list(csv.reader(lines, strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a text file of paths and labels: {error}") from error


def _split_words(path: str, lines: Sequence[str]) -> list[_Line]:
    """Split lines without a comma, from the right."""
    if not lines:
        raise DataError(f"{path} lists no video")
    words = [line.split() for line in lines]
    as_tsm = all(len(line) == 3 and _is_integer(line[1]) and _is_integer(line[2]) for line in words)
    split = [line.rsplit(maxsplit=2 if as_tsm else 1) for line in lines]
    for words, line in zip(split, lines, strict=True):
        if len(words) < 2:
            raise DataError(
                f"{path}: every line must be 'path,label', 'path,label,split', 'path label' or "
                f"'path num_frames label', one is {line.strip()!r}"
            )
    return [_Line(words[0].strip(), words[-1]) for words in split]


def _split_cells(path: str, lines: Sequence[str], rows: Sequence[list[str]]) -> list[_Line]:
    cells = [[cell.strip() for cell in row] for row in rows]
    if [cell.lower() for cell in cells[0]] in _HEADERS:
        cells = cells[1:]
    if not cells:
        raise DataError(f"{path} lists no video")
    for row in cells:
        if len(row) not in (2, 3) or len(row) != len(cells[0]) or not all(row):
            raise DataError(
                f"{path}: every line must be 'path,label', or every line 'path,label,split', or no "
                f"line must have a comma; one is {','.join(row)!r}"
            )
        if len(row) == 3 and row[2] not in SPLITS:
            raise DataError(f"{path}: unknown split {row[2]!r}, allowed are {', '.join(SPLITS)}")
    return [_Line(*row) for row in cells]


def _is_integer(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


def _number_labels(
    labels: Sequence[str],
) -> tuple[list[int], list[str | None], tuple[str, ...]]:
    """Indices, what is wrong with them, and class names."""
    if not all(map(_is_integer, labels)):
        classes = tuple(sorted(set(labels)))
        index_of = {name: index for index, name in enumerate(classes)}
        return [index_of[label] for label in labels], [None] * len(labels), classes
    numbers = [int(label) for label in labels]
    faults = [
        f"label {number} is negative, labels are numbered from 0" if number < 0 else None
        for number in numbers
    ]
    return (
        [max(number, UNKNOWN_LABEL) for number in numbers],
        faults,
        tuple(str(number) for number in range(max(numbers) + 1)),
    )


def _with_suffix(path: str) -> str:
    if path.lower().endswith(VIDEO_SUFFIXES):
        return path
    return next((f"{path}{end}" for end in VIDEO_SUFFIXES if file_exists(f"{path}{end}")), path)
