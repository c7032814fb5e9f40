"""Diving48 as released, V1 and V2: two lists, a vocabulary, and a folder of mp4 files."""

from collections import defaultdict
from typing import Any, Literal, get_args

from dsts_ray.data.formats.annotations import (
    Annotations,
    annotation_table,
    read_items,
    read_json,
)
from dsts_ray.data.manifest import UNKNOWN_LABEL
from dsts_ray.data.storage import file_exists, join
from dsts_ray.errors import ConfigError, DataError

Version = Literal["v1", "v2"]

_LISTS = {"v1": "Diving48_{}.json", "v2": "Diving48_V2_{}.json"}
_KEYS = {"vid_name": str, "label": object, "start_frame": int, "end_frame": int}


def read_annotations(root: str, version: Version | None = None) -> Annotations:
    """Read two lists and ``Diving48_vocab.json``; videos lie in ``rgb/``.

    V1 names its lists ``Diving48_{train,test}.json``, V2 ``Diving48_V2_{train,test}.json``. V2
    dropped a thousand clips and changed the label of two in five of the others, so results on one
    do not compare with results on the other. A class name joins its four attributes:
    ``Back+15som+05Twis+FREE``. The group is the source video, ``vid_name`` up to its last
    underscore. In V2 no video has class 30; it stays in the vocabulary, so that labels are those
    of the release.

    Args:
        root: Folder of the release.
        version: Which lists; None takes V2's where one of them lies there, else V1's.

    Raises:
        ConfigError: Unknown version.
        DataError: A file is missing or malformed.
    """
    if version is None:
        has_v2, has_v1 = (
            any(file_exists(join(root, _LISTS[name].format(split))) for split in ("train", "test"))
            for name in ("v2", "v1")
        )
        version = "v2" if has_v2 or not has_v1 else "v1"
    if version not in _LISTS:
        allowed = ", ".join(get_args(Version))
        raise ConfigError(f"unknown version {version!r} of Diving48: choose one of {allowed}")
    classes = _read_classes(join(root, "Diving48_vocab.json"))
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    lists = {split: join(root, _LISTS[version].format(split)) for split in ("train", "test")}
    for split, path in lists.items():
        items = read_items(path, _KEYS)
        names = [item["vid_name"] for item in items]
        faults = [_fault(item["label"], len(classes)) for item in items]
        columns["video_id"] += names
        columns["split"] += [split] * len(items)
        columns["label"] += [
            UNKNOWN_LABEL if fault else item["label"]
            for item, fault in zip(items, faults, strict=True)
        ]
        columns["group"] += [name.rsplit("_", 1)[0] for name in names]
        columns["path"] += [join(root, f"rgb/{name}.mp4") for name in names]
        columns["start_frame"] += [item["start_frame"] for item in items]
        columns["end_frame"] += [item["end_frame"] for item in items]
        columns["fault"] += faults
    return Annotations(annotation_table(columns), classes, tuple(lists.values()), join(root, "rgb"))


def _read_classes(path: str) -> tuple[str, ...]:
    vocabulary = read_json(path)
    if not (isinstance(vocabulary, list) and all(isinstance(item, list) for item in vocabulary)):
        raise DataError(f"{path} must hold a list of lists of attributes")
    return tuple("+".join(map(str, attributes)) for attributes in vocabulary)


def _fault(label: object, num_classes: int) -> str | None:
    if type(label) is int and 0 <= label < num_classes:
        return None
    return f"label {label!r} is outside the vocabulary, allowed are 0 to {num_classes - 1}"
