"""Files of an explanation."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsts_ray.errors import ConfigError
from dsts_ray.explain.clips import key_frames
from dsts_ray.explain.drawing import Explanation
from dsts_ray.explain.values import explain_predictions
from dsts_ray.explain.write import PAGE, VALUES, write_explanation
from tests.support.explanation import HISTORY, HOSTILE, PREDICTED, SPATIAL_RATIOS, predictions


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    hostile = (HOSTILE, "b", "$x_{$")
    return explain_predictions(
        predictions(PREDICTED, classes=hostile), spatial_ratios=SPATIAL_RATIOS, history=HISTORY
    )


@pytest.fixture(scope="module")
def strips(explanation: Explanation) -> list[bytes]:
    """Of each clip a picture of one brightness, that of its row."""
    shape = (2, 32, 32, 3)
    return [key_frames(np.full(shape, 40 * clip.row, np.uint8)) for clip in explanation.clips]


def test_page_values_and_figures_replace_an_earlier_explanation(
    explanation: Explanation, strips: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "explanation"
    write_explanation(explanation, strips, folder)
    (folder / "clips_layer7_neuron7.png").touch()
    assert write_explanation(explanation, strips, folder) == folder / PAGE
    values = json.loads((folder / VALUES).read_text())
    assert values["classes"][0] == HOSTILE
    pictures = {path.stem for path in folder.glob("*.png")}
    paths = [clip["path"] for clip in values["clips"]]
    of_clips = {f"clips_layer{n}_neuron{path[n]}" for path in paths for n in (0, 1)}
    assert pictures == {figure["name"] for figure in values["figures"]} | of_clips
    for picture in folder.glob("*.png"):
        Image.open(picture).verify()
    assert [path.name for path in folder.parent.iterdir()] == ["explanation"]


def test_a_picture_of_a_neuron_has_the_strips_of_its_clips(
    explanation: Explanation, strips: list[bytes], tmp_path: Path
) -> None:
    write_explanation(explanation, strips, tmp_path / "x")
    for neuron in range(3):
        places = explanation.clips_of_neurons[0][neuron]
        rows = [explanation.clips[place].row for place in places]
        assert {explanation.clips[place].path[0] for place in places} == {neuron}
        picture = Image.open(tmp_path / "x" / f"clips_layer0_neuron{neuron}.png").convert("L")
        middle = np.asarray(picture)[:, picture.width // 2].astype(int)
        runs = np.split(middle, np.flatnonzero(np.diff(middle)) + 1)
        seen = [int(run[0]) for run in runs if len(run) > 50 and run[0] < 250]
        assert seen == pytest.approx([40 * row for row in rows], abs=3)


def test_the_page_has_the_licence_of_the_charts(
    explanation: Explanation, strips: list[bytes], tmp_path: Path
) -> None:
    page = write_explanation(explanation, strips, tmp_path / "x").read_text()
    assert "Permission is hereby granted, free of charge" in page
    assert "Plotly Technologies Inc." in page


def test_names_cannot_leave_the_data_of_the_page(
    explanation: Explanation, strips: list[bytes], tmp_path: Path
) -> None:
    page = write_explanation(explanation, strips, tmp_path / "x").read_text()
    assert "<img src=x" not in page
    assert page.count("</script>") == 3


def test_a_folder_of_something_else_is_left_alone(explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="is no explanation, or holds other files"):
        write_explanation(explanation, [b""] * 5, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_files_that_lie_beside_an_explanation_are_left_alone(
    explanation: Explanation, strips: list[bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    write_explanation(explanation, strips, folder)
    (folder / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        write_explanation(explanation, strips, folder)
    assert (folder / "notes.txt").exists()
    (folder / "notes.txt").unlink()
    (folder / VALUES).write_text("[]")
    with pytest.raises(ConfigError, match="holds other files"):
        write_explanation(explanation, strips, folder)


def test_the_working_directory_is_not_replaced(
    explanation: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is the working directory"):
        write_explanation(explanation, [b""] * 5, tmp_path)
