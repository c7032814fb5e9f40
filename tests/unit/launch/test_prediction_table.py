"""Names that would be markup on a console."""

from io import StringIO

from rich.console import Console

from dsts_ray.launch.prediction_table import print_prediction
from dsts_ray.tracking.base import Prediction

PATH = "a/[/x]/[red]b.mp4"


def printed(prediction: Prediction) -> str:
    out = StringIO()
    print_prediction({"path": PATH, "shard": None}, prediction, Console(file=out, width=200))
    return out.getvalue()


def test_classes_and_names_are_text() -> None:
    text = printed(Prediction(["Putting [something]", "[/b]"], [0.75, 0.25], [1], None))
    assert text.startswith(f"{PATH}\n")
    assert "Putting [something]" in text
    assert "[/b]" in text


def test_reasons_are_text() -> None:
    text = printed(Prediction([], [], [], f"{PATH}: [bold]no video[/]"))
    assert text == f"{PATH}: [bold]no video[/]\n"


def test_active_neurons_are_one_line() -> None:
    text = printed(Prediction(["a"], [1.0], [1, 2, 3], None))
    assert text.endswith("\nactive neurons: layer 0: 1, layer 1: 2, layer 2: 3\n")
