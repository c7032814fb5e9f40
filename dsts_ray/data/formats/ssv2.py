"""Something-Something v2 as released, in the file naming of 20BN and in that of Qualcomm."""

import csv
from collections import defaultdict
from typing import Any

from dsts_ray.data.formats.annotations import (
    Annotations,
    annotation_table,
    read_items,
    read_json,
)
from dsts_ray.data.manifest import UNKNOWN_LABEL
from dsts_ray.data.storage import file_exists, join, read_bytes
from dsts_ray.errors import DataError

_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_FOLDER = "20bn-something-something-v2"
_ID = (str, int)


def read_annotations(root: str) -> Annotations:
    """Read the labels and the three lists; videos lie in ``20bn-something-something-v2/``.

    20BN names the files ``something-something-v2-{labels,train,validation,test}.json``, Qualcomm
    ``labels/{labels,train,validation,test}.json`` with ``labels/test-answers.csv``; where both lie
    there, Qualcomm's are read. A class is the item's template without its brackets, never the free
    caption under "label". Test videos without answers get label -1.

    Raises:
        DataError: A file is missing or malformed.
    """
    qualcomm = file_exists(join(root, "labels/labels.json"))
    prefix = "labels/" if qualcomm else "something-something-v2-"
    vocabulary = _read_vocabulary(join(root, f"{prefix}labels.json"))
    answers_path = join(root, "labels/test-answers.csv")
    answers = _read_answers(answers_path) if qualcomm and file_exists(answers_path) else {}
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    lists = {name: join(root, f"{prefix}{name}.json") for name in _SPLITS}
    for name, path in lists.items():
        keys = {"id": _ID} if name == "test" else {"id": _ID, "template": str}
        items = read_items(path, keys)
        ids = [str(item["id"]) for item in items]
        if name == "test":
            names = [answers.get(video_id) for video_id in ids]
        else:
            names = [item["template"].replace("[", "").replace("]", "") for item in items]
        columns["video_id"] += ids
        columns["split"] += [_SPLITS[name]] * len(items)
        columns["label"] += [
            UNKNOWN_LABEL if class_name is None else vocabulary.get(class_name, UNKNOWN_LABEL)
            for class_name in names
        ]
        columns["fault"] += [
            f"class {class_name!r} is outside the vocabulary of {len(vocabulary)} classes"
            if class_name is not None and class_name not in vocabulary
            else None
            for class_name in names
        ]
    columns["group"] = columns["video_id"]
    columns["path"] = [join(root, f"{_FOLDER}/{video_id}.webm") for video_id in columns["video_id"]]
    classes = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    read = (*lists.values(), *([answers_path] if answers else []))
    return Annotations(annotation_table(columns), classes, read, join(root, _FOLDER))


def _read_vocabulary(path: str) -> dict[str, int]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must map class names to indices")
    if {str(index) for index in content.values()} != {str(i) for i in range(len(content))}:
        raise DataError(f"{path} must number its {len(content)} classes from 0, each once")
    return {name: int(index) for name, index in content.items()}


def _read_answers(path: str) -> dict[str, str]:
    """Read the classes of the test videos: lines of ``id;class``."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text file: {error}") from error
    lines = [line for line in csv.reader(text.splitlines(), delimiter=";") if line]
    for number, line in enumerate(lines, start=1):
        if len(line) != 2:
            raise DataError(f"{path}: line {number} must be 'id;class', is {';'.join(line)!r}")
    return dict(lines)
