"""Files of an explanation."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dsts_ray.errors import ConfigError
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


def test_page_values_and_figures_replace_an_earlier_explanation(
    explanation: Explanation, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "explanation"
    strips = [b"jpeg"] * len(explanation.clips)
    write_explanation(explanation, strips, folder)
    (folder / "old.png").touch()
    assert write_explanation(explanation, strips, folder) == folder / PAGE
    values = json.loads((folder / VALUES).read_text())
    assert values["classes"][0] == HOSTILE
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures == {figure["name"] for figure in values["figures"]}
    for picture in folder.glob("*.png"):
        Image.open(picture).verify()
    assert [path.name for path in folder.parent.iterdir()] == ["explanation"]


def test_names_cannot_leave_the_data_of_the_page(explanation: Explanation, tmp_path: Path) -> None:
    page = write_explanation(explanation, [b""] * 5, tmp_path / "x").read_text()
    assert "<img src=x" not in page
    assert page.count("</script>") == 3


def test_a_folder_of_something_else_is_left_alone(explanation: Explanation, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="is no explanation; choose another folder by --out"):
        write_explanation(explanation, [b""] * 5, tmp_path)
    assert (tmp_path / "thesis.tex").exists()
