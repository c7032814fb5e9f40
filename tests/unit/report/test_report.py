"""From runs in MLflow to the files of a report."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import TrackingError
from dsts_ray.report.record import DIVERGED, FAILED, FINISHED, new_record
from dsts_ray.report.results import NOT_RUN, RUN_ARTIFACT, read_sweep
from dsts_ray.report.tables import Table, build_table, to_csv, to_html, to_markdown
from dsts_ray.report.write import write_sweep_report
from dsts_ray.tracking.mlflow import log_artifacts, open_run
from tests.support.sweeps import WrittenSweep, begin_sweep, write_run

NUM_VIDEOS = 300


def right(share: float) -> list[bool]:
    """The first videos are recognized, the others not."""
    return [video < share * NUM_VIDEOS for video in range(NUM_VIDEOS)]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> WrittenSweep:
    """Two rows with two seeds each; of the third one diverged and one never ran."""
    sweep = begin_sweep(tmp_path_factory.mktemp("sweep"))
    for row, shares in {"whole": (0.8, 0.9), "w/o UDL": (0.5, 0.6)}.items():
        for seed, share in enumerate(shares):
            curve = (0.1, share)
            write_run(sweep.uri, sweep.run(row, seed), right(share), share, curve, wall_s=10 + seed)
            sweep.end(row, seed, FINISHED)
    write_run(sweep.uri, sweep.run("lost", 0), None, 0.3)  # its loss was lost at the last step
    sweep.end("lost", 0, DIVERGED, "the training loss is nan at step 4")
    return sweep


@pytest.fixture(scope="module")
def table(sweep: WrittenSweep) -> Table:
    return build_table(read_sweep("hand", sweep.uri))


def test_runs_are_read_with_values_curves_and_predictions(sweep: WrittenSweep) -> None:
    results = read_sweep(sweep.file, sweep.uri)
    run = results.of_row("w/o UDL")[1]
    assert (run.outcome, run.best) == (FINISHED, 0.6)
    assert run.values["num_parameters"] == 1.0e6  # less the auxiliary head's
    assert run.curve == [(0, 0.1), (1, 0.6)]
    assert run.recognized is not None
    assert (run.recognized.ranks == 0).mean() == pytest.approx(0.6)
    assert [r.outcome for r in results.of_row("lost").values()] == [DIVERGED, NOT_RUN]


def test_a_failed_run_that_logged_what_it_refused_is_a_failed_one(tmp_path: Path) -> None:
    """A run logs the list of refused videos however it ends, a summary only at its end."""
    sweep = begin_sweep(tmp_path)
    write_run(sweep.uri, sweep.run("whole", 0), None, 0.5)
    sweep.end("whole", 0, FINISHED)
    run_id = open_run(
        uri=sweep.uri,
        experiment="dsts_ray",
        run_name=sweep.run("lost", 0),
        artifact_root=None,
        params={},
        tags={},
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "refused.parquet").touch()
    log_artifacts(
        uri=sweep.uri, run_id=run_id, directory=tmp_path / "run", artifact_path=RUN_ARTIFACT
    )
    sweep.end("lost", 0, FAILED, "no video can be decoded")
    failed = read_sweep("hand", sweep.uri).of_row("lost")[0]
    assert (failed.outcome, failed.reason, failed.values) == (FAILED, "no video can be decoded", {})


def test_rows_have_mean_spread_and_a_paired_difference(table: Table) -> None:
    whole, without, lost = table.rows
    assert whole.cells["val/top1"].mean == pytest.approx(0.85)
    assert whole.cells["val/top1"].spread == pytest.approx(np.std([0.8, 0.9], ddof=1))
    assert (whole.baseline, whole.difference) == (None, None)
    assert without.difference is not None
    assert without.difference.mean == pytest.approx(-0.3)
    assert -0.36 < without.difference.low < without.difference.high < -0.24
    assert without.difference.drawn == "2 seeds and 300 videos"
    assert without.paper_difference == pytest.approx(-0.01)
    assert lost.difference is None
    assert lost.notes == ["seed 0 diverged: the training loss is nan at step 4", "seed 1 not run"]


def test_markdown_shows_ours_beside_the_papers_and_what_is_missing(table: Table) -> None:
    lines = to_markdown(table, {"a figure": "figure1.png"}).splitlines()
    assert lines[0] == "# Written by hand"
    assert "with optim.lr=0.5. The paper's numbers: nowhere." in lines[2]
    rows = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert "| 85.0 ± 7.1 | 88.4 | baseline |" in rows["whole"]
    assert re.search(
        r"\| 55.0 ± 7.1 \| 87.4 \| -30.0 \[-3\d.\d, -2\d.\d\] \| -1.0 \|", rows["w/o UDL"]
    )
    assert "| 1.00 ± 0.00 | 10 ± 1 | 4.00 ± 0.00 |" in rows["whole"]
    assert "| missing |" in rows["lost"]
    assert "seed 1 not run" in rows["lost"]
    assert "- 4 of 6 runs finished; values are those of a run's last evaluation" in lines
    assert "![a figure](figure1.png)" in lines


def test_csv_holds_the_unrounded_numbers(table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(table))))
    (line,) = (x for x in lines if (x["row"], x["measure"]) == ("w/o UDL", "val/top1"))
    assert float(line["mean"]) == pytest.approx(0.55)
    assert (line["paper"], line["baseline"], line["seeds"]) == ("0.874", "whole", "2")
    assert float(line["low"]) < float(line["difference"]) < float(line["high"]) < 0
    (line,) = (x for x in lines if (x["row"], x["measure"]) == ("lost", "wall_s"))
    assert (line["mean"], line["seeds"]) == ("", "0")


def test_html_is_one_page_whose_text_is_escaped(table: Table) -> None:
    page = to_html(table, {"<b>": "AAAA"})
    assert page.count("<tr>") == 4
    assert '<img alt="&lt;b&gt;" src="data:image/png;base64,AAAA">' in page
    assert "<b>" not in page


def test_an_interval_that_holds_zero_is_undecided_and_lost_predictions_leave_the_seeds(
    tmp_path: Path,
) -> None:
    sweep = begin_sweep(tmp_path)
    for seed, (whole, without) in enumerate([(0.5, 0.6), (0.6, 0.5)]):
        write_run(sweep.uri, sweep.run("whole", seed), right(whole), whole)
        write_run(sweep.uri, sweep.run("w/o UDL", seed), None, without)
    row = build_table(read_sweep("hand", sweep.uri)).rows[1]
    assert row.difference is not None
    assert row.difference.drawn == "2 seeds"
    assert not row.difference.is_decided
    text = to_markdown(build_table(read_sweep("hand", sweep.uri)), {})
    assert "+0.0 [-10.0, +10.0], undecided" in text
    assert "paired bootstrap, drawn with replacement: 2 seeds;" in text


def test_a_report_replaces_an_earlier_one(
    sweep: WrittenSweep, table: Table, tmp_path: Path
) -> None:
    out = tmp_path / "reports" / "hand"
    for _ in range(2):
        write_sweep_report(table, out)
    names = {path.name for path in out.iterdir()}
    assert names == {"report.md", "report.csv", "report.html", "figure1.png", "figure2.png"}
    assert [path.name for path in out.parent.iterdir()] == ["hand"]
    for name in ("figure1.png", "figure2.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert name in (out / "report.md").read_text()


def test_the_sweep_of_a_name_that_ran_last_is_read_or_one_by_its_own_name(tmp_path: Path) -> None:
    """A smaller one of the same name began later, then the first went on."""
    whole = begin_sweep(tmp_path)
    small = begin_sweep(tmp_path, whole.uri, seeds=[0])
    assert read_sweep("hand", whole.uri).run_name == small.plan.name
    assert begin_sweep(tmp_path, whole.uri).run_id == whole.run_id
    for sweep in ("hand", whole.file, whole.plan.name):
        assert read_sweep(sweep, whole.uri).run_name == whole.plan.name
    assert read_sweep(small.plan.name, whole.uri).run_name == small.plan.name
    run = write_run(whole.uri, whole.run("whole", 0), None, 0.5)
    assert run
    with pytest.raises(TrackingError, match="no sweep 'demo-"):
        read_sweep(whole.run("whole", 0), whole.uri)


def test_an_edited_sweep_is_reported_as_it_is_now_with_what_has_run(tmp_path: Path) -> None:
    sweep = begin_sweep(tmp_path)
    sweep.end("w/o UDL", 0, FAILED, "once")
    edited = Path(sweep.file).read_text().replace("w/o UDL:", "bare:").replace("0.884", "0.9")
    Path(sweep.file).write_text(edited.replace("title: Written by hand", "title: Edited"))
    plan = plan_sweep(load_sweep(sweep.file), sweep.plan.overrides)
    assert plan.name == sweep.plan.name
    record = new_record(plan, sweep.record)
    assert (record.title, record.paper["whole"]["val/top1"]) == ("Edited", 0.9)
    (run,) = {t.run for t in record.trials if (t.row, t.seed) == ("bare", 0)}
    assert record.outcomes == {run: (FAILED, "once")}
    assert record.baselines.keys() == {"bare", "lost"}
    assert "w/o UDL" not in {trial.row for trial in record.trials}


def test_what_cannot_be_reported_is_one_clear_error(sweep: WrittenSweep, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"no sweep 'table1' was ever started.*jobs/tune.py"):
        read_sweep("table1", sweep.uri)
    other = begin_sweep(tmp_path)
    other.record.metric = "val/top5"
    other.end("whole", 0, FINISHED)
    write_run(other.uri, other.run("whole", 0), None, 0.5)
    with pytest.raises(TrackingError, match=r"no run of hand logged val/top5; they have: num_para"):
        read_sweep("hand", other.uri)
