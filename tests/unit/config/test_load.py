import dataclasses
from pathlib import Path

import pytest
import yaml
from pydantic import ConfigDict, TypeAdapter

from dsts_ray.config.fields import ConfigField, config_fields
from dsts_ray.config.load import (
    changed_config,
    config_from_yaml,
    config_to_dict,
    config_to_yaml,
    flatten,
    load_config,
    preset_names,
    preset_text,
    run_name,
)
from dsts_ray.config.schema import Config
from dsts_ray.errors import ConfigError

DEMO = ("data.manifest=demo",)


def errors_of(*overrides: str, preset: str | None = "demo", file: Path | None = None) -> list[str]:
    """Return the lines of the error that a configuration raises, without its first."""
    with pytest.raises(ConfigError) as caught:
        load_config(preset=preset, file=file, overrides=overrides)
    first, *lines = str(caught.value).splitlines()
    noun = "problem" if len(lines) == 1 else "problems"
    assert first == f"{len(lines)} {noun} in the configuration:"
    return [line.removeprefix("  ") for line in lines]


def test_file_goes_over_preset_and_overrides_over_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dsts:\n  num_neurons: 7\n  num_layers: 4\noptim:\n")
    config = load_config(preset="demo", file=file, overrides=["dsts.num_layers=5"])
    preset = load_config(preset="demo")
    assert (config.dsts.num_neurons, config.dsts.num_layers) == (7, 5)
    assert config.dsts.groups == preset.dsts.groups != Config().dsts.groups
    assert config.dsts.temperature == Config().dsts.temperature
    assert config.preset == "demo"


def test_last_of_equal_overrides_wins() -> None:
    assert load_config(overrides=[*DEMO, "train.seed=1", "train.seed=2"]).train.seed == 2


def test_defaults_alone_need_nothing_but_a_manifest() -> None:
    expected = dataclasses.replace(
        Config(), data=dataclasses.replace(Config().data, manifest="demo")
    )
    assert load_config(overrides=DEMO) == expected


def test_file_or_override_chooses_the_preset_as_the_argument_does(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: demo\n")
    assert load_config(file=file) == load_config(preset="demo")
    assert load_config(overrides=["preset=demo"]) == load_config(preset="demo")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("optim.lr=1e-4", 1e-4),
        ("optim.lr=2", 2.0),
        ("udl.enabled=false", False),
        ("data.crop_scale=[0.5, 1]", (0.5, 1.0)),
        ("optim.milestones=[]", ()),
        ("augment.flip_labels=[[86, 87], [93, 94]]", ((86, 87), (93, 94))),
        ("name=2026", "2026"),
        ("name=1e5", "1e5"),
        ("storage.path=", ""),
        ("storage.path=@a #b: [c", "@a #b: [c"),
        ("storage.path=/data/a=b", "/data/a=b"),
        ("tracking.experiment=no", "no"),
    ],
)
def test_override_values_take_the_type_of_their_field(override: str, value: object) -> None:
    config = load_config(preset="demo", overrides=[override])
    decoded: object = config
    for name in override.partition("=")[0].split("."):
        decoded = getattr(decoded, name)
    assert decoded == value
    assert type(decoded) is type(value)


def test_override_may_give_a_whole_section() -> None:
    config = load_config(preset="demo", overrides=["dsts={num_neurons: 3, skip: false}"])
    assert (config.dsts.num_neurons, config.dsts.skip) == (3, False)
    assert config.dsts.num_layers == load_config(preset="demo").dsts.num_layers


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("dsts.num_layers=0", "dsts.num_layers = 0: must be an integer >= 1"),
        ("dsts.num_layers=true", "dsts.num_layers = true: must be an integer >= 1"),
        ("dsts.num_layers=1.5", "dsts.num_layers = 1.5: must be an integer >= 1"),
        ("optim.lr=", "optim.lr = null: must be a number > 0"),
        ("optim.lr=false", "optim.lr = false: must be a number > 0"),
        ("optim.lr=.inf", "optim.lr = Infinity: must be a number > 0"),
        ("optim.lr=fast", 'optim.lr = "fast": must be a number > 0'),
        ("model.dropout=1", "model.dropout = 1: must be a number >= 0 and < 1"),
        ("dsts.skip=maybe", 'dsts.skip = "maybe": must be true or false'),
        ("optim.name=adam", 'optim.name = "adam": must be one of sgd, adamw'),
        ("optim.schedule=off", 'optim.schedule = "off": must be one of cosine, step, constant'),
        (
            "data.crop_scale=[0.5]",
            "data.crop_scale = [0.5]: must be a list of 2, each a number > 0 and <= 1",
        ),
        (
            "data.crop_scale=[0.5, true]",
            "data.crop_scale = [0.5, true]: must be a list of 2, each a number > 0 and <= 1",
        ),
        (
            "optim.milestones=0.5",
            "optim.milestones = 0.5: must be a list, each a number > 0",
        ),
        (
            "augment.flip_labels=[86, 87]",
            "augment.flip_labels = [86, 87]: must be a list, each a list of 2, each an integer "
            ">= 0",
        ),
        ("tracking.experiment=", 'tracking.experiment = "": must be text that is not empty'),
        ("dsts.num_neuron=6", "dsts.num_neuron = 6: unknown key; did you mean dsts.num_neurons?"),
        ("num_neurons=6", "num_neurons = 6: unknown key; did you mean dsts.num_neurons?"),
        (
            "model.num_neurons=6",
            "model.num_neurons = 6: unknown key; did you mean dsts.num_neurons?",
        ),
        ("dropot=0", "dropot = 0: unknown key; did you mean model.dropout?"),
        (
            "batch_size=8",
            "batch_size = 8: unknown key; did you mean train.batch_size or evaluation.batch_size?",
        ),
        ("widht=3", "widht = 3: unknown key; did you mean dsts.width?"),
        ("zzz=1", "zzz = 1: unknown key; see --help for all keys"),
        ("optim.lr.value=1", "optim.lr.value = 1: unknown key; did you mean optim.lr?"),
        ("data.demo=3", "data.demo = 3: is a section; set its keys, as in data.demo.KEY=VALUE"),
        ("--fast", "--fast: must have the form key=value, as in dsts.num_neurons=6"),
        ("=3", "=3: must have the form key=value, as in dsts.num_neurons=6"),
        ("data.crop_scale=[0.5", "data.crop_scale = [0.5: is not valid YAML"),
    ],
)
def test_error_names_key_value_and_what_is_allowed(override: str, line: str) -> None:
    assert errors_of(override) == [line]


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dsts:\n  num_layer: 2\noptim:\n  lr: -1\n")
    lines = errors_of("nonsense", "udl.covers=all", "data.crop_size=4096", file=file)
    assert sorted(line.split()[0] for line in lines) == [
        "data.crop_size",
        "dsts.num_layer",
        "nonsense:",
        "optim.lr",
        "udl.covers",
    ]


def test_no_rule_is_reported_about_a_key_that_is_wrong_itself() -> None:
    assert len(errors_of("train.batch_sise=30", "scaling.num_workers=3")) == 1
    assert len(errors_of("train.batch_size=no", "scaling.num_workers=3")) == 1


def test_unknown_preset_lists_the_presets_and_the_nearest() -> None:
    (line,) = errors_of(preset="demmo")
    choices = ", ".join(preset_names())
    assert line == f'preset = "demmo": must be one of {choices}; did you mean demo?'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"dsts: [1", "is not valid YAML"),
        (b"- dsts\n", "must hold sections such as `dsts:`, not"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (None, "No such file or directory"),
    ],
    ids=["invalid", "list", "binary", "missing"],
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    (line,) = errors_of(preset=None, file=file)
    assert line.startswith(f"configuration file {file}: {reason}")


def test_yaml_reads_back_to_an_equal_configuration(tmp_path: Path) -> None:
    overrides = [
        "optim.lr=1e-7",
        "name=0123",
        "augment.flip_labels=[[1, 2]]",
        "tracking.uri=http://h:5000",
    ]
    config = load_config(preset="demo", overrides=overrides)
    text = config_to_yaml(config)
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert config_from_yaml(text) == config
    assert config_from_yaml(file) == config
    assert load_config(file=file) == config
    assert yaml.safe_load(text) == config_to_dict(config)


def test_flatten_has_every_key_of_the_schema() -> None:
    config = load_config(preset="demo")
    flat = flatten(config)
    assert list(flat) == list(config_fields())
    assert flat["model.backbone.tpn.depths"] == list(config.model.backbone.tpn.depths)


def test_run_name_is_stable_and_follows_what_is_trained() -> None:
    def name(*overrides: str) -> str:
        return run_name(load_config(preset="demo", overrides=overrides))

    base = name()
    assert base.startswith("demo-")
    assert len(base) == len("demo-") + 8
    assert base == name()
    assert base == name("storage.path=/elsewhere", "tracking.uri=http://host:5000")
    assert base == name("data.decoder_resource=decode", "scaling.placement_strategy=SPREAD")
    assert base == name("scaling.wait_for_nodes_s=60")
    assert base != name("train.seed=1")
    assert base != name("tracking.experiment=other")
    assert name("name=mine") == "mine"
    assert run_name(load_config(overrides=DEMO)).startswith("run-")


@pytest.mark.parametrize("field", config_fields().values(), ids=lambda field: field.key)
def test_defaults_lie_in_their_own_ranges(field: ConfigField) -> None:
    adapter = TypeAdapter(field.annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
    assert adapter.validate_python(field.default) == field.default


def test_the_demo_preset_states_only_what_differs_from_the_schema() -> None:
    """A recipe's preset states every number of the recipe, with its source."""

    def leaves(mapping: dict[str, object], prefix: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in mapping.items():
            found |= (
                leaves(value, f"{prefix}{key}.")
                if isinstance(value, dict)
                else {prefix + key: value}
            )
        return found

    defaults = flatten(Config())
    stated = leaves(yaml.safe_load(preset_text("demo")))
    assert [key for key, value in stated.items() if defaults[key] == value] == []
    assert flatten(load_config(preset="demo")) == {**defaults, **stated, "preset": "demo"}


def test_a_trained_models_configuration_changes_in_named_sections_only() -> None:
    config = load_config(preset="demo", overrides=["data.num_frames=4"])
    overrides = ["evaluation.protocol=2x3", "data.sampling=uniform"]
    changed = changed_config(config, overrides, ["evaluation.", "data."])
    assert changed == dataclasses.replace(
        config,
        evaluation=dataclasses.replace(config.evaluation, protocol="2x3"),
        data=dataclasses.replace(config.data, sampling="uniform"),
    )
    with pytest.raises(ConfigError) as refused:
        changed_config(
            config,
            ["evaluation.avrage=logits", "evaluation.protocol=2by3", "dsts.num_layers=1"],
            ["evaluation.", "data."],
        )
    for text in (
        "did you mean evaluation.average?",
        "evaluation.protocol = '2by3' must be",
        "dsts.num_layers: cannot be changed for a trained model; only evaluation., data. can",
    ):
        assert text in str(refused.value)
