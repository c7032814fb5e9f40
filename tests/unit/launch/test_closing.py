from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dsts_ray.build import build_setup
from dsts_ray.config.load import load_config
from dsts_ray.launch.closing import print_outcome
from dsts_ray.launch.run import Outcome, Run

EMBEDDED = "sqlite:////a/my runs/mlflow.db"


def closing(tracking_uri: str, **summary: Any) -> str:  # noqa: ANN401
    """What a run that ended with this summary prints."""
    config = load_config(preset="demo")
    setup = build_setup(config, model="run", split="test", num_videos=8)
    registered = {
        "registered_model": "dives",
        "registered_version": "3",
        "is_champion": True,
        "incomparable": "",
    }
    printed = StringIO()
    run = Run(config, "run", Path("/a/my runs/run"), tracking_uri, Path("manifest.parquet"))
    content = {"num_classes": 4, "evaluation": asdict(setup), **registered, **summary}
    print_outcome(Outcome(run, content, was_finished=False), Console(file=printed, width=200))
    return printed.getvalue()


@pytest.mark.parametrize(
    ("tracking_uri", "page", "option"),
    [
        (
            EMBEDDED,
            "mlflow ui --backend-store-uri 'sqlite:////a/my runs/mlflow.db'\n"
            "  see the run      http://127.0.0.1:5000/#/experiments?workflowType=machine_learning\n",
            "--tracking-uri 'sqlite:////a/my runs/mlflow.db'",
        ),
        (
            "http://host:5000",
            "  see the run      http://host:5000/#/experiments?",
            "--tracking-uri http://host:5000",
        ),
        (
            "https://me:secret@host:5000",
            "  see the run      https://host:5000/#/experiments?",
            "--tracking-uri https://host:5000",
        ),
    ],
    ids=["embedded", "server", "password"],
)
def test_commands_name_the_store_of_the_run(tracking_uri: str, page: str, option: str) -> None:
    printed = closing(tracking_uri)
    assert page in printed
    model = "--model models:/dives@champion"
    assert f"python jobs/evaluate.py {model} {option}\n" in printed
    assert f"python jobs/predict.py {model} {option} VIDEO...\n" in printed
    assert "secret" not in printed


def test_commands_name_the_new_version_where_another_stays_champion() -> None:
    printed = closing(EMBEDDED, is_champion=False)
    assert "registered         models:/dives/3\n" in printed
    assert printed.count("--model models:/dives/3 --tracking-uri") == 2
    assert "python jobs/promote.py 3 --model dives --tracking-uri 'sqlite:////a/" in printed
    assert "@champion" not in printed


def test_a_champion_measured_on_other_videos_is_named_as_such() -> None:
    printed = closing(EMBEDDED, is_champion=False, incomparable="split val, the champion's is test")
    assert "not compared with the champion: split val, the champion's is test\n" in printed


def test_lost_figures_are_named() -> None:
    reason = "figures of step 8: OSError(28, 'No space left on device [/tmp]')"
    assert f"not in MLflow      {reason}\n" in closing(EMBEDDED, figures_lost=[reason])
    assert "not in MLflow" not in closing(EMBEDDED, figures_lost=[])


def test_counts_are_whole_numbers() -> None:
    printed = closing(EMBEDDED, **{"val/num_videos": 320.0, "val/num_refused": 0.0})
    rows = [line.split("│")[1:3] for line in printed.splitlines() if "│" in line]
    table = {label.strip(): value.strip() for label, value in rows}
    assert (table["validation videos"], table["of them refused"]) == ("320", "0")
