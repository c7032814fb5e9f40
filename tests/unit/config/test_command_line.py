from pathlib import Path

import pytest

from dsts_ray.config.command_line import build_parser, config_from_arguments
from dsts_ray.config.fields import config_fields
from dsts_ray.config.load import load_config, preset_names
from dsts_ray.config.schema import Config


def config_of(*argv: str) -> Config:
    return config_from_arguments(build_parser("A job.").parse_intermixed_args(argv))


def test_nothing_given_means_the_demo_preset() -> None:
    assert config_of() == load_config(preset="demo")


def test_options_may_stand_between_overrides() -> None:
    config = config_of("train.seed=1", "--preset", "demo", "optim.lr=0.5", "--dry-run")
    assert (config.train.seed, config.optim.lr) == (1, 0.5)


def test_a_file_alone_starts_from_the_schema(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  manifest: mine.parquet\n")
    assert config_of("--config", str(file)) == load_config(overrides=["data.manifest=mine.parquet"])
    assert (
        config_of("--config", str(file), "--preset", "demo").dsts == load_config(preset="demo").dsts
    )


def test_help_lists_presets_and_every_key_with_default_range_and_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        build_parser("A job.").parse_args(["--help"])
    text = capsys.readouterr().out
    lines = text.splitlines()
    for key in config_fields():
        assert any(line.startswith(f"  {key}=") for line in lines), key
    for name in preset_names():
        assert f"  {name} " in text
    assert "  dsts.num_neurons=10  (an integer >= 1)\n      Specialized neurons in a layer" in text
    assert "dsts: Dynamic Spatio-Temporal Specialization module." in text
