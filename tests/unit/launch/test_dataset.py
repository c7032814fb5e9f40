import json
from pathlib import Path

import pytest

from dsts_ray.errors import ConfigError
from dsts_ray.launch.dataset import check_same_data, describe
from tests.support.videos import manifest

BEFORE = (("a", 0, "train"), ("b", 1, "train"), ("c", 0, "test"))


def test_a_run_goes_on_with_the_data_it_began_with(tmp_path: Path) -> None:
    record = tmp_path / "data.json"
    check_same_data(manifest(*BEFORE), record)
    record.write_text(json.dumps(describe(manifest(*BEFORE))))
    check_same_data(manifest(*BEFORE, folder="/moved"), record)
    a, b, c = BEFORE
    for changed, text in (
        (
            (a, b, c, ("d", 1, "train")),
            r"'train': 2, 'test': 1} before, {'train': 3, 'test': 1} now",
        ),
        ((b, a, c), r"\(digest: \w+ before, \w+ now\); choose another name="),
        ((a, ("b", 0, "train"), c), r"\(digest: \w+ before, \w+ now\)"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_same_data(manifest(*changed), record)
