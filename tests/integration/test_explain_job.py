"""The explain job on a trained model, and its page in a browser."""

import io
import json
import re
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Browser, expect

from dsts_ray.build import build_model
from dsts_ray.config.load import config_from_yaml, config_to_yaml
from dsts_ray.data.manifest import Manifest
from dsts_ray.explain.clips import key_frames
from dsts_ray.explain.drawing import Explanation
from dsts_ray.explain.values import explain_predictions
from dsts_ray.explain.write import PAGE, VALUES, write_explanation
from dsts_ray.launch.explain import strips_of
from dsts_ray.train.checkpoint import save_weights
from dsts_ray.train.evaluate import NOT_SEEN
from tests.support.browser import Watched, launched, opened
from tests.support.explanation import (
    HISTORY,
    HOSTILE,
    PREDICTED,
    SPATIAL_RATIOS,
    many_predictions,
    predictions,
)
from tests.support.jobs import REPOSITORY, RunJob, TrainedRun
from tests.support.lethal import LethalViewSpec
from tests.support.videos import write_video

CHAMPION = "models:/dsts_ray@champion"


@dataclass(frozen=True)
class Explained:
    """A folder that the job wrote, and the run that it explains."""

    folder: Path
    run_id: str

    @property
    def values(self) -> dict[str, Any]:
        """Content of the JSON file."""
        return json.loads((self.folder / VALUES).read_text())


@pytest.fixture(scope="module")
def explained(
    trained: TrainedRun, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> Explained:
    """The champion, against a plain backbone that has not learned anything."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "untrained").mkdir()
    classes = Manifest.read(trained.manifest).classes
    config = config_from_yaml(trained.folder / "config.yaml")
    config = replace(config, dsts=replace(config.dsts, enabled=False))
    model = build_model(config, len(classes))
    torch.nn.init.normal_(model.classifier.fc.weight)
    save_weights(folder / "untrained", model, classes=classes, config=config_to_yaml(config))
    command = ["explain.py", "--model", CHAMPION, "--tracking-uri", trained.tracking_uri]
    command += ["--baseline", str(folder / "untrained"), "--out", str(folder / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", command)
        assert runpy.run_path(str(REPOSITORY / "jobs" / "explain.py"))["main"]() == 0
    return Explained(folder / "out", trained.summary["mlflow_run_id"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def watched(explained: Explained, browser: Browser) -> Iterator[Watched]:
    with opened(browser, explained.folder / PAGE) as watched:
        yield watched


def test_clips_that_do_not_decode_again_cost_their_strips_alone(
    ray_cluster: None, tmp_path: Path
) -> None:
    """A missing video among others, and one that ends the process it shares with nobody."""
    lethal = LethalViewSpec(
        num_frames=2, short_side=48, crop_size=32, crashes="crashes.mp4", hangs="hangs.mp4"
    )
    good, crashes = (write_video(tmp_path / name) for name in ("good.mp4", "crashes.mp4"))
    paths = [tmp_path / "gone.mp4", *[good] * 15, crashes]
    videos = [{"path": str(path), "start_frame": 0, "end_frame": None} for path in paths]
    found = strips_of(lethal, videos, num_cpus=0.1)
    shown = key_frames(lethal.views(videos[1])[0])
    assert found[1:-1] == [shown] * 15
    for strip in (found[0], found[-1]):
        assert Image.open(io.BytesIO(strip)).size == (6 * 64, 64)


def test_bad_requests(run_job: RunJob, trained: TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for arguments, text in (
        (("--out", tmp_path), "is no explanation, or holds other files beside one"),
        (("--split", "nowhere"), "no video in split 'nowhere'"),
        (("--baseline", "models:/tpn@champion"), "there is no models:/tpn@champion"),
        (("--num-workers", "0"), "--num-workers is 0"),
        (("--set", "optim.lr=1"), "optim.lr: cannot be changed for a trained model"),
    ):
        store = ("--tracking-uri", trained.tracking_uri)
        result = run_job("explain.py", "--model", CHAMPION, *store, *arguments)
        assert result.code == 2
        assert text in result.error


def test_the_values_are_those_of_the_run(explained: Explained, trained: TrainedRun) -> None:
    client, values = MlflowClient(trained.tracking_uri), explained.values
    assert values["setup"].startswith("test, 8 videos, protocol 1x1")
    assert values["baseline"].endswith("untrained")
    run = client.get_run(explained.run_id)
    figures = {figure["name"]: figure for figure in values["figures"]}
    tags = client.get_model_version_by_alias("dsts_ray", "champion").tags
    assert values["metrics"]["val/top1"] == pytest.approx(float(tags["val/top1"]), abs=1e-6)
    drawn = figures["course_gates_over_training_layer1"]
    curves = dict(drawn["series"])
    key = "gates/layer1/neuron2_spatial_ratio"
    assert list(drawn["x"]) == [3, 7, 11]
    assert curves[key][-1] == run.data.metrics[key]
    assert dict(figures["gates_layer1"]["series"])["spatial"][2] in curves[key]
    assert sum(sum(row) for _, row in figures["confusion"]["series"]) == 8
    assert sum(sum(row) for _, row in figures["paths_layer0"]["series"]) == 8


def test_the_files_are_artifacts_of_the_models_run(
    explained: Explained, trained: TrainedRun
) -> None:
    client = MlflowClient(trained.tracking_uri)
    logged = {
        Path(found.path).name
        for found in client.list_artifacts(explained.run_id, "explanation/test")
    }
    assert logged == {path.name for path in explained.folder.iterdir()}
    assert {PAGE, VALUES, "gates_layer0.png", "confusion.png"} <= logged
    clips = explained.values["clips"]
    of_clips = {f"clips_layer{n}_neuron{clip['path'][n]}.png" for clip in clips for n in (0, 1)}
    assert of_clips == {name for name in logged if name.startswith("clips_")}


def test_the_page_asks_for_nothing_and_draws_the_values(
    explained: Explained, watched: Watched
) -> None:
    page = watched.page
    for figure in explained.values["figures"]:
        page.wait_for_selector(f"#{figure['name']} .main-svg")
        drawn = page.evaluate(f"document.getElementById('{figure['name']}').data")
        series = [values for _, values in figure["series"]]
        rows = drawn[0]["z"] if figure["kind"] == "heat" else [trace["y"] for trace in drawn]
        assert rows == series, figure["name"]
    bars = page.locator("#gates_layer0 .barlayer .point path").all()
    (_, spatial), (_, temporal) = explained.values["figures"][0]["series"]
    heights = [box["height"] for bar in bars if (box := bar.bounding_box())]
    whole = heights[0] + heights[len(spatial)]
    assert [height / whole for height in heights] == pytest.approx(spatial + temporal, abs=0.02)
    assert page.locator("#confusion .heatmaplayer image").count() == 1
    assert page.locator("#course_loss .scatterlayer path.js-line").count() >= 2
    assert watched.requests[0].startswith("file://")
    assert all(url.startswith("data:") for url in watched.requests[1:])
    assert watched.complaints == []


def test_tables_are_sorted_by_mouse_and_by_keyboard(explained: Explained, watched: Watched) -> None:
    page = watched.page
    rows = next(own for own in explained.values["tables"] if own["name"] == "classes")["rows"]

    def column(place: int) -> list[str]:
        return page.locator(f"#classes tbody td:nth-child({place})").all_text_contents()

    names = [row[0] for row in rows]
    assert column(1) == names
    page.click("#classes th:nth-child(7) button")
    assert column(7) == [str(value) for value in sorted((row[6] for row in rows), reverse=True)]
    heading = page.locator("#classes th:nth-child(1)")
    heading.locator("button").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(1) == sorted(names, key=str.lower)
    assert page.locator("th[aria-sort=descending]").count() == 0


def test_clips_are_picked_by_neuron_and_by_classes(explained: Explained, watched: Watched) -> None:
    page, clips = watched.page, explained.values["clips"]

    def shown() -> list[str]:
        return page.locator("#clips figcaption span:last-child").all_text_contents()

    for layer in (0, 1):
        for neuron in range(3):
            page.select_option("#layer", str(layer))
            page.select_option("#neuron", str(neuron))
            chosen = explained.values["clips_of_neurons"][layer][neuron]
            wanted = [clips[place]["video_id"] for place in chosen]
            assert {clips[place]["path"][layer] for place in chosen} <= {neuron}
            assert shown() == wanted
            count = explained.values["activations"][layer][neuron]
            assert page.text_content("#count") == f"{len(wanted)} of {count} clips"
    page.select_option("#way", "1")
    page.select_option("#one", "0")
    page.select_option("#other", "1")
    pair = [c["video_id"] for c in clips if {c["label"], c["predicted"]} <= {0, 1}]
    assert shown() == pair
    tables = {table["name"]: table["rows"] for table in explained.values["tables"]}
    right = sum(row[2] for row in tables["classes"][:2])
    names = {row[0] for row in tables["classes"][:2]}
    wrong = sum(row[2] for row in tables["pairs"] if {row[0], row[1]} == names)
    assert page.text_content("#count") == f"{len(pair)} of {right + wrong} clips"
    assert page.is_hidden("#neuron")
    images = page.locator("#clips img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert all(width > 64 for width in images)


def test_figures_have_their_values_as_a_table(explained: Explained, watched: Watched) -> None:
    page, figure = watched.page, explained.values["figures"][0]
    article = page.locator("article", has=page.locator(f"#{figure['name']}"))
    article.locator("summary").press("Enter")
    cells = article.locator("tbody tr").first.locator("td")
    cells.first.wait_for()
    titles = [cells.nth(place).get_attribute("title") for place in (1, 2)]
    (_, spatial), (_, temporal) = figure["series"]
    assert [float(title or "") for title in titles] == [spatial[0], temporal[0]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_fits_its_window(watched: Watched, scheme: Any, width: int) -> None:  # noqa: ANN401
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    expect(page.locator("#gates_layer0 .main-svg").first).to_have_attribute(
        "width", re.compile(rf"^{width - 32 if width < 1200 else 1168}(\.\d+)?$")
    )  # charts follow a moment later
    assert not watched.is_wider_than_the_window
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    luminance = {
        name: sum(map(int, value[4:-1].split(",")))
        for name, value in {"ink": ink, "paper": paper}.items()
    }
    assert (luminance["ink"] < luminance["paper"]) == (scheme == "light")
    label = page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert label == ink
    assert watched.complaints == []


def strips(explanation: Explanation) -> list[bytes]:
    """Black ones."""
    return [key_frames(np.zeros((8, 32, 32, 3), np.uint8))] * len(explanation.clips)


def test_names_are_text_in_a_page(browser: Browser, tmp_path: Path) -> None:
    explanation = explain_predictions(
        predictions(PREDICTED, classes=(HOSTILE, "<b>b</b>", "&lt;i&gt;"), model=HOSTILE),
        spatial_ratios=SPATIAL_RATIOS,
        history=HISTORY,
    )
    page = write_explanation(explanation, strips(explanation), tmp_path / "out")
    with opened(browser, page) as watched:
        assert HOSTILE in (watched.page.text_content("h1") or "")
        cell = watched.page.locator("#classes tbody td").first
        assert cell.text_content() == HOSTILE
        ticks = watched.page.locator("#confusion .ytick text").all_text_contents()
        assert ticks[1:] == ["<b>b</b>", "&lt;i&gt;"]
        assert watched.page.locator("img[src=x]").count() == 0
        assert watched.complaints == []
        assert len(watched.requests) == 1 + sum(url.startswith("data:") for url in watched.requests)


def test_classes_named_by_numbers_keep_their_order(browser: Browser, tmp_path: Path) -> None:
    classes = ("10", "2", "0")
    explanation = explain_predictions(
        predictions(PREDICTED, classes=classes), spatial_ratios=[], history={}
    )
    page = write_explanation(explanation, strips(explanation), tmp_path / "out")
    with opened(browser, page) as watched:
        ticks = watched.page.locator("#confusion .ytick text").all_text_contents()
        assert ticks == list(classes)
        rows = watched.page.evaluate("document.getElementById('confusion').data[0].z")
        assert rows == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
        article = watched.page.locator("article", has=watched.page.locator("#confusion"))
        article.locator("summary").press("Enter")
        expect(article.locator("th")).to_have_text(["predicted class", *classes])


def test_many_classes_and_neurons(browser: Browser, tmp_path: Path) -> None:
    """Of 48 columns each can be seen in a small window, and ten lines told apart."""
    drift = {f"gates/layer0/neuron{n}_spatial_ratio": [(9, n / 10), (19, 0.5)] for n in range(10)}
    explanation = explain_predictions(
        many_predictions(num_classes=48, num_neurons=10), spatial_ratios=[], history=drift
    )
    page = write_explanation(explanation, strips(explanation), tmp_path / "out")
    with opened(browser, page) as watched:
        watched.page.set_viewport_size({"width": 400, "height": 800})
        for name in ("confusion", "classes_layer0"):
            box = watched.page.locator(".wide", has=watched.page.locator(f"#{name}"))
            drawn = box.locator(".heatmaplayer image")
            expect(drawn).to_have_count(1)
            assert (drawn.bounding_box() or {})["width"] >= 48 * 14
            assert box.evaluate("box => box.scrollWidth > box.clientWidth")
        assert not watched.is_wider_than_the_window
        lines = watched.page.evaluate(
            "document.getElementById('course_gates_over_training_layer0').data"
            ".map(trace => trace.line.color + trace.line.dash)"
        )
        assert len(set(lines)) == 10
        assert watched.complaints == []


def test_without_activations_clips_are_picked_by_classes(browser: Browser, tmp_path: Path) -> None:
    """All videos are refused."""
    saved = predictions([None] * 6)
    refused = replace(
        saved.predictions,
        views_seen=torch.zeros_like(saved.predictions.views_seen),
        chosen=torch.full_like(saved.predictions.chosen, NOT_SEEN),
        refused=dict.fromkeys(range(6), "is empty"),
    )
    explanation = explain_predictions(
        replace(saved, predictions=refused), spatial_ratios=[], history={}
    )
    assert explanation.clips == []
    page = write_explanation(explanation, strips(explanation), tmp_path / "out")
    with opened(browser, page) as watched:
        assert watched.page.locator("#way option").all_text_contents() == ["a pair of classes"]
        assert watched.page.text_content("#count") == "0 of 0 clips"
        assert watched.complaints == []


def test_a_tool_tip_tells_the_value_under_the_pointer(browser: Browser, tmp_path: Path) -> None:
    explanation = explain_predictions(
        predictions(PREDICTED), spatial_ratios=SPATIAL_RATIOS, history={}
    )
    page = write_explanation(explanation, strips(explanation), tmp_path / "out")
    with opened(browser, page) as watched:
        watched.page.locator("#gates_layer0 .nsewdrag").hover()
        tip = watched.page.locator("#gates_layer0 .hoverlayer .hovertext")
        expect(tip.first).to_contain_text(re.compile("al, neuron 1: 0.5"))
        assert tip.first.is_visible()
