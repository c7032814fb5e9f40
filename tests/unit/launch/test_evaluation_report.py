import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dsts_ray.launch.evaluation_report import ClassRow, print_report, report_on, write_report
from dsts_ray.train.predictions import SavedPredictions
from tests.support.predictions import SAVED

CLASSES = [ClassRow("x", 1, 1, 1, 1.0), ClassRow("y", 1, 1, 1, 1.0), ClassRow("z", 1, 0, 0, 0.0)]


def printed(saved: SavedPredictions = SAVED, *, per_class: bool) -> str:
    out = io.StringIO()
    print_report(report_on(saved), Console(file=out, width=120), per_class=per_class)
    return out.getvalue()


def test_a_result_says_what_it_holds_for_and_what_was_left_out() -> None:
    text = printed(per_class=False)
    assert text.startswith(
        "models:/tpn/3 on test, 3 videos, protocol 2x1 (softmax averaged), frames 8 by segments, "
        "crop 224 of 256\n"
    )
    assert "refused, counted as wrong: b: b.mp4: is empty\n" in text
    assert "averaged over fewer views than 2x1: c\n" in text
    rows = [[cell.strip() for cell in line.split("│")] for line in text.splitlines()]
    values = {row[1]: row[2] for row in rows if len(row) > 3}
    assert values["val/top1"] == "0.666667"
    assert (values["val/num_videos"], values["val/num_refused"]) == ("3", "1")
    assert "taken for it" not in text
    assert "taken for it" in printed(per_class=True)


def test_names_are_text() -> None:
    saved = replace(SAVED, classes=("[/a]", "[b]b", "c"), video_ids=("x", "[/y]", "z"))
    text = printed(saved, per_class=True)
    assert "[/a]" in text
    assert "[b]b" in text
    assert "counted as wrong: [/y]: " in text


def test_classes_with_counts_confusion_and_intervals() -> None:
    report = report_on(SAVED)
    assert report.classes == CLASSES
    assert report.confusion == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    low, high = report.intervals["val/top1"]
    assert low < report.metrics["val/top1"] < high


def test_the_json_file_holds_everything(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "r.json"
    write_report(report_on(SAVED), path)
    content = json.loads(path.read_text())
    assert content["setup"]["num_videos"] == 3
    assert content["metrics"]["val/mean_class_accuracy"] == 2 / 3
    assert content["classes"][2] == {
        "name": "z",
        "num_videos": 1,
        "num_correct": 0,
        "num_predicted": 0,
        "accuracy": 0.0,
    }
    assert content["refused"] == [["b", "b.mp4: is empty"]]
    assert content["incomplete"] == ["c"]
    assert content["bootstrap"] == {"num_resamples": 1000, "seed": 0}
