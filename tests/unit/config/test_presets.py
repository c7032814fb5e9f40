"""Presets resolve to what is written down in ``golden/``.

Renew after an intended change, from the repository's root::

    for f in dsts_ray/config/presets/*.yaml; do python jobs/train.py --preset $(basename $f .yaml) --dry-run > tests/unit/config/golden/$(basename $f); done
"""  # noqa: E501

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from dsts_ray.build import build_model, scaled_lr
from dsts_ray.config.load import config_from_yaml, load_config, preset_names, preset_text
from tests.support.jobs import REPOSITORY

GOLDEN = Path(__file__).parent / "golden"
RECIPES = [
    f"{dataset}_{backbone}{dsts}"
    for dataset in ("ssv2", "diving48")
    for backbone in ("tpn", "swin")
    for dsts in ("", "_dsts")
]
SOURCE = re.compile(r"# (recipe|paper|ours: \w|mmaction2's|released|Diving48)")


def test_the_presets_are_the_recipes_and_the_demo() -> None:
    assert preset_names() == sorted([*RECIPES, "demo"])
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(preset_names())


@pytest.mark.parametrize("name", [*RECIPES, "demo"])
def test_a_dry_run_prints_the_golden_configuration(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--preset", name, "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "jobs" / "train.py"), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed == (GOLDEN / f"{name}.yaml").read_text(), f"renew as {__file__} says"
    assert config_from_yaml(printed) == load_config(preset=name)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_begins_with_the_papers_result(name: str) -> None:
    assert re.search(r"\(Table [12]\)\.$", preset_text(name).splitlines()[0])


@pytest.mark.parametrize("name", [*RECIPES, "demo"])
def test_every_number_names_its_source(name: str) -> None:
    """Of the demo's own DSTS and UDL, whose sizes follow the machine, none is asked."""
    section = ""
    for line in preset_text(name).splitlines():
        section = section if line.startswith((" ", "#")) else line
        if name == "demo" and section in ("dsts:", "udl:"):
            continue
        value = line.partition("#")[0].partition(":")[2]
        if re.match(r" *[\[\d]", value):
            assert SOURCE.search(line), line


@pytest.mark.parametrize("name", [name for name in RECIPES if "tpn" in name])
def test_the_released_tpns_shortcuts_are_shifted(name: str) -> None:
    """As with tsm_position "inplace", the default of its backbone."""
    assert load_config(preset=name).model.backbone.tpn.shift_downsample


@pytest.mark.parametrize("name", RECIPES)
def test_a_dsts_preset_is_its_baseline_with_dsts(name: str) -> None:
    own, baseline = load_config(preset=name), load_config(preset=name.removesuffix("_dsts"))
    assert own.dsts.enabled == own.udl.enabled == name.endswith("_dsts")
    assert not baseline.dsts.enabled
    for section in ("data", "augment", "model", "optim", "train", "evaluation", "engine"):
        assert getattr(own, section) == getattr(baseline, section)
    assert scaled_lr(own) == own.optim.lr


@pytest.mark.parametrize(
    ("name", "num_classes", "num_parameters"),
    [
        ("diving48_tpn", 48, 62_952_560),
        ("diving48_tpn_dsts", 48, 75_080_816),
        ("ssv2_tpn", 174, 63_210_734),
        ("ssv2_swin", 174, 88_655_688 + 178_350),
        ("diving48_swin_dsts", 48, 88_655_688 + 49_200 + 12_079_104),
    ],
)
def test_models_have_the_size_of_the_paper(
    name: str, num_classes: int, num_parameters: int
) -> None:
    """Without TPN's auxiliary head, which only training has; Table 4: 63M and 75M."""
    no_head = "model.backbone.tpn.auxiliary_loss_weight=0"
    with torch.device("meta"):
        model = build_model(load_config(preset=name, overrides=[no_head]), num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
