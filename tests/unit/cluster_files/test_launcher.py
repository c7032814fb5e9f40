"""Files of Ray's cluster launcher, by Ray's own check, and the commands they run on nodes."""

import copy
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from dsts_ray.config.load import load_config
from dsts_ray.launch.capacity import Resources, fits, training_request
from tests.support.cluster_files import LAUNCHER, load

FILES = ["aws", "gcp", "on_premise"]
CLOUD = ["aws", "gcp"]
PAPER = load_config(
    preset="diving48_tpn_dsts",
    overrides=["data.manifest=m.parquet", "data.decoder_resource=decode"],
)


def launcher(name: str) -> dict[str, Any]:
    return load(LAUNCHER / f"{name}.yaml")


@pytest.mark.parametrize("name", FILES)
def test_ray_takes_it(name: str) -> None:
    config = prepare_config(launcher(name))
    validate_config(config)
    misspelt = copy.deepcopy(config) | {"idle_timeout_minute": 5}
    with pytest.raises(ValidationError, match="idle_timeout_minute"):
        validate_config(misspelt)


def test_there_is_no_other_file() -> None:
    assert {path.stem for path in LAUNCHER.iterdir()} == set(FILES)


@pytest.mark.parametrize("name", CLOUD)
def test_the_papers_run_fits_the_nodes_that_the_autoscaler_may_add(name: str) -> None:
    nodes: list[Resources] = []
    for node_type in prepare_config(launcher(name))["available_node_types"].values():
        nodes += [node_type["resources"]] * max(1, node_type["max_workers"])
    assert fits(training_request(PAPER), nodes)
    assert not fits(training_request(PAPER), nodes[:-1])
    assert sum(node_type.get("CPU", 0) for node_type in nodes[:1]) == 0  # none on the head


@pytest.mark.parametrize("name", FILES)
def test_nodes_ask_for_the_token_and_the_dashboard_stays_on_loopback(name: str) -> None:
    config = launcher(name)
    for start in (config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]):
        assert "RAY_AUTH_MODE=token" in start
        assert "DSTS_HOME=/mnt/dsts" in start
    assert config["head_start_ray_commands"][-1].endswith("--dashboard-host=127.0.0.1")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", FILES)
def test_the_host_commands_are_shell(name: str) -> None:
    config = launcher(name)
    kinds = ("initialization", "setup", "head_setup", "head_start_ray", "worker_start_ray")
    for command in (line for kind in kinds for line in config.get(f"{kind}_commands", [])):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize(
    ("has_gpu", "resources"), [(True, "--resources={}"), (False, '--resources={"decode":3}')]
)
def test_on_premise_machines_without_a_gpu_decode(
    tmp_path: Path, has_gpu: bool, resources: str
) -> None:
    programs = {"ray": 'printf "%s\\n" "$@"', "nproc": "echo 3"}
    programs["nvidia-smi"] = "true" if has_gpu else "false"
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / name).chmod(0o755)
    command = launcher("on_premise")["worker_start_ray_commands"][-1]
    variables = os.environ | {"HOME": str(tmp_path), "RAY_HEAD_IP": "10.0.0.10"}
    started = subprocess.run(
        ["bash", "-c", command], env=variables, capture_output=True, text=True, check=True
    )
    assert started.stdout.splitlines() == ["start", "--address=10.0.0.10:6379", resources]
