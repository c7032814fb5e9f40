from pathlib import Path

import pytest

from dsts_ray.config.load import config_to_yaml, load_config
from dsts_ray.errors import ConfigError
from dsts_ray.launch.run import check_same_config
from dsts_ray.train.checkpoint import CONFIG_FILE


def test_a_run_goes_on_elsewhere_but_not_with_another_configuration(tmp_path: Path) -> None:
    check_same_config(load_config(preset="demo"), tmp_path)  # nothing there yet
    (tmp_path / CONFIG_FILE).write_text(config_to_yaml(load_config(preset="demo")))
    placed = ("data.decoder_resource=decode", "scaling.placement_strategy=SPREAD")
    waiting = ("scaling.wait_for_nodes_s=60", "storage.path=/elsewhere", "name=mine")
    check_same_config(load_config(preset="demo", overrides=(*placed, *waiting)), tmp_path)
    with pytest.raises(ConfigError, match=r"train\.seed: 0 before, 1 now\)"):
        check_same_config(load_config(preset="demo", overrides=["train.seed=1"]), tmp_path)


def test_a_changed_configuration_goes_on_where_its_keys_are_named(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text(config_to_yaml(load_config(preset="demo")))
    now = load_config(preset="demo", overrides=["train.seed=1", "scaling.num_workers=1"])
    with pytest.raises(ConfigError, match=r"--changed scaling\.num_workers,train\.seed$"):
        check_same_config(now, tmp_path, ["train.seed"])
    check_same_config(now, tmp_path, ["train.seed", "scaling.num_workers"])
    with pytest.raises(ConfigError, match=r"--changed names train\.sed"):
        check_same_config(now, tmp_path, ["train.sed"])
