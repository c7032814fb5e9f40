"""What ends a run before anything starts."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from dsts_ray.config.load import config_to_yaml, load_config
from dsts_ray.config.schema import Config
from dsts_ray.errors import ConfigError, DataError
from dsts_ray.launch.dataset import describe
from dsts_ray.launch.run import DATA_FILE
from dsts_ray.launch.trainer import train
from dsts_ray.report.results import SUMMARY_FILE
from dsts_ray.train.checkpoint import CONFIG_FILE
from tests.support.videos import manifest

VIDEOS = (("a", 0, "train"), ("b", 1, "train"), ("c", 0, "train"), ("d", 1, "test"))


def small(folder: Path, *overrides: str) -> Config:
    """A run on a manifest in the folder."""
    places = (f"data.manifest={folder / 'manifest.parquet'}", f"storage.path={folder / 'runs'}")
    return load_config(preset="demo", overrides=["name=run", *places, *overrides])


@pytest.mark.parametrize("finished", [True, False])
def test_the_same_command_on_a_manifest_indexed_anew(tmp_path: Path, finished: bool) -> None:
    config = small(tmp_path)
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(config_to_yaml(config))
    (folder / DATA_FILE).write_text(json.dumps(describe(manifest(*VIDEOS))))
    if finished:
        (folder / SUMMARY_FILE).write_text("{}")
        assert train(config, Console(quiet=True)).was_finished
    manifest(*reversed(VIDEOS)).write(config.data.manifest)
    with pytest.raises(ConfigError, match=r"runs/run holds a run on other videos.* another name="):
        train(config, Console(quiet=True))


def test_a_batch_of_all_clips_leaves_none_to_hold_out(tmp_path: Path) -> None:
    manifest(*VIDEOS).write(tmp_path / "manifest.parquet")
    for batch_size in (3, 4):
        config = small(tmp_path, f"train.batch_size={batch_size}", "scaling.num_workers=1")
        with pytest.raises(
            ConfigError,
            match=rf"train.batch_size = {batch_size} with udl.enabled takes all of the 3 training "
            r"clips.*train.batch_size of at most 2, more videos, or udl.enabled=false",
        ):
            train(config, Console(quiet=True))
    assert not (tmp_path / "runs").exists()


def test_a_folder_in_brackets_is_no_markup(tmp_path: Path) -> None:
    folder, out = tmp_path / "[x]", StringIO()
    folder.mkdir()
    with pytest.raises(DataError, match="no manifest"):
        train(small(folder), Console(file=out, width=500))
    assert out.getvalue() == f"run run in {folder / 'runs' / 'run'}\n"
