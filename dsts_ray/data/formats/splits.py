"""Names of splits, and how videos without one are dealt to them."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test"}
"""How lists and folders may name a split."""

_VAL_SHARE = 5


def draw_splits(names: Sequence[str], labels: Sequence[int]) -> list[str]:
    """Deal videos to "train" and "val".

    Of a class's n videos n // 5 go to "val", at least one where the class has two or more. Which
    ones depends on a hash of the names alone. A class of one video goes to "train".
    """
    members: defaultdict[int, set[str]] = defaultdict(set)
    for name, label in zip(names, labels, strict=True):
        members[label].add(name)
    held_out: set[tuple[int, str]] = set()
    for label, of_class in members.items():
        drawn = sorted(of_class, key=lambda name: hashlib.sha256(name.encode()).digest())
        share = max(len(drawn) // _VAL_SHARE, 1) if len(drawn) > 1 else 0
        held_out.update((label, name) for name in drawn[:share])
    return ["val" if pair in held_out else "train" for pair in zip(labels, names, strict=True)]
