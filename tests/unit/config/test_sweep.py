"""Sweeps as data: the packaged ones, and what is wrong with a file."""

from pathlib import Path

import pytest

from dsts_ray.config.load import flatten, load_config
from dsts_ray.config.sweep import MEASURES, as_overrides, load_sweep, only_rows, sweep_names
from dsts_ray.config.trials import plan_sweep
from dsts_ray.errors import ConfigError

PACKAGED = {
    *(f"table{number}" for number in range(1, 8)),
    *(f"supp{number}" for number in range(1, 6)),
    *("n_by_l", "ablations", "lr", "search"),
}


def sweep_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_every_table_of_the_paper_is_packaged() -> None:
    assert set(sweep_names()) == PACKAGED


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_a_packaged_sweep_resolves_and_every_paper_row_has_its_trials(name: str) -> None:
    plan = plan_sweep(load_sweep(name))
    rows = {trial.row for trial in plan.trials}
    assert plan.sweep.paper.keys() <= rows
    assert {measure for row in plan.sweep.paper.values() for measure in row} <= set(MEASURES)
    assert plan.num_runs == (16 if name == "search" else len(plan.trials))
    for row in rows:
        seeds = [trial.seed for trial in plan.trials if trial.row == row]
        assert seeds == list(plan.sweep.seeds)


def test_the_papers_numbers_are_those_of_the_same_model_in_every_table() -> None:
    """The whole of DSTS on TPN has 88.4 and 78.2 wherever it stands."""
    reference = plan_sweep(load_sweep("ablations"))
    (name,) = {t.name for t in reference.trials if t.row == "DSTS" and t.seed == 0}
    numbers = reference.sweep.paper["DSTS"]
    assert (numbers["val/top1"], numbers["val/mean_class_accuracy"]) == (0.884, 0.782)
    found = 0
    for table in sorted(PACKAGED - {"search", "lr", "n_by_l"}):
        plan = plan_sweep(load_sweep(table))
        for trial in plan.trials:
            if trial.name == name:
                found += 1
                assert plan.sweep.paper[trial.row].items() <= numbers.items(), (table, trial.row)
    assert found == 12


def test_a_file_with_nothing_but_errors_is_told_all_of_them(tmp_path: Path) -> None:
    text = """
title: Wrong
metric: val/top9
seeds: [1, 1]
scheduler: pbt
rows:
  a: {dsts.num_neuron: 3}
  b: {train.seed: 3, storage.path: x}
baseline: c
paper:
  aa: {val/top1: 0.5}
  b: {val/loss: 0.5}
"""
    with pytest.raises(ConfigError) as caught:
        load_sweep(sweep_file(tmp_path, text))
    told = str(caught.value)
    for part in (
        "9 problems in sweep mine",
        "rows.a: dsts.num_neuron: is no key of the configuration; did you mean dsts.num_neurons?",
        "rows.b: train.seed: is set by the sweep itself",
        "rows.b: storage.path: is set by the sweep itself",
        "scheduler = pbt: population-based training copies checkpoints",
        "seeds = [1, 1]: name each once",
        "metric = val/top9: no run is chosen by it; use one of val/top1",
        "paper.aa: no row of the sweep has this name; did you mean 'a'?",
        "paper.b.val/loss: is never logged; use one of val/top1",
        "baseline = c: no row of the sweep has this name",
    ):
        assert part in told
    assert told.count("\n") == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: T", "neither rows nor space holds anything to run"),
        ("title: T\nrows: {}\nspace: {}", "neither rows nor space holds anything to run"),
        ("title: T\nrows: {a: {}}\nspace: {optim.lr: [1.0]}", "both given"),
        ("title: T\nspace: {optim.lr: []}", "space.optim.lr: is empty"),
        ("title: T\nspace: {optim.lr: {low: 1, high: 2}}", "has no grid"),
        (
            "title: T\nsearcher: random\nspace: {optim.lr: {low: 0, high: 2, log: true}}",
            "0 < low < high must hold",
        ),
        ("title: T\nsearcher: random\nspace: {optim.lr: {low: 3, high: 2}}", "low < high"),
        ("title: T\nsearcher: optuna\nrows: {a: {}}", "draws from a space, this sweep has rows"),
        (
            "title: T\nsearcher: optuna\nseeds: [0, 1]\nspace: {optim.lr: [0.1]}",
            "optuna is told one value",
        ),
        (
            "title: T\nsearcher: random\nspace: {optim.lr: [0.1]}\nbaseline: lr=0.1",
            "searcher = random: makes rows of its own, paper and baseline name others",
        ),
        (
            "title: T\nsearcher: optuna\nspace: {optim.lr: {low: 1, high: 2}}\n"
            "paper: {lr=1: {val/top1: 0.5}}",
            "searcher = optuna: makes rows of its own",
        ),
        ("title: T\nsearcher: bohb\nspace: {optim.lr: [0.1]}", 'searcher = "bohb"'),
        ("title: T\nrow: {a: {}}", "row = "),
        ("- a", "must hold `title:`"),
        ("title: [", "is not valid YAML"),
    ],
)
def test_one_thing_wrong_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(sweep_file(tmp_path, text))
    assert message in str(caught.value)


def test_an_unknown_sweep_is_told_its_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no sweep 'tabel3'.*did you mean table3\?"):
        load_sweep("tabel3")
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_sweep("absent.yaml")


def test_the_command_line_changes_a_sweep() -> None:
    sweep = load_sweep("table6", seeds=[7], preset="demo", metric=None)
    assert (sweep.seeds, sweep.preset, sweep.metric) == ((7,), "demo", "val/top1")


def test_a_preset_that_no_row_would_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)1 problem in sweep table2:.*preset = demo: every"):
        load_sweep("table2", preset="demo")
    assert load_sweep("table2").preset == "diving48_tpn_dsts"


def test_some_rows_of_a_sweep() -> None:
    sweep = only_rows(load_sweep("table2"), ["Swin-B w/ DSTS", "TPN", "TPN w/ DSTS"])
    assert list(sweep.rows) == list(sweep.paper) == ["TPN", "TPN w/ DSTS", "Swin-B w/ DSTS"]
    assert sweep.baseline_of("TPN w/ DSTS") == "TPN"
    assert sweep.baseline_of("Swin-B w/ DSTS") is None  # it is left out
    with pytest.raises(ConfigError, match=r"'L = 2' is no row of sweep table7; it has: 'L = 1', "):
        only_rows(load_sweep("table7"), ["L = 1", "L = 2"])
    with pytest.raises(ConfigError, match="random draws the rows of sweep lr"):
        only_rows(load_sweep("lr", searcher="random"), ["lr=0.001"])


def test_some_points_of_a_grid() -> None:
    names = ["num_neurons=5 num_layers=1", "num_neurons=10 num_layers=3"]
    sweep = only_rows(load_sweep("n_by_l"), names)
    assert sweep.points()[names[0]] == {"dsts.num_neurons": 5, "dsts.num_layers": 1}
    assert list(sweep.points()) == names
    assert list(sweep.paper) == names[1:]
    assert sweep.baseline_of(names[0]) == names[1]
    with pytest.raises(ConfigError, match=r"'num_layers=2' is no row of sweep n_by_l; it has: 'nu"):
        only_rows(load_sweep("n_by_l"), ["num_layers=2"])


def test_random_rows_follow_from_the_seed_and_stay_in_the_space() -> None:
    sweep = load_sweep("search", searcher="random", num_rows=20)
    rows = list(sweep.points(3).values())
    assert rows == list(sweep.points(3).values())
    assert rows != list(sweep.points(4).values())
    assert len(rows) == 20
    rates = [row["optim.lr"] for row in rows]
    assert all(0.0005 <= rate <= 0.005 for rate in rates)
    assert min(rates) < 0.001 < 0.002 < max(rates)
    assert {row["dsts.num_layers"] for row in rows} == {1, 2, 3}


def test_values_survive_the_way_through_overrides() -> None:
    values = {
        "optim.lr": 1e-05,
        "dsts.skip": False,
        "optim.milestones": [1.0, 2.5],
        "dsts.scoring_kernel": "1x3x3",
        "train.num_epochs": 3,
    }
    config = flatten(load_config(preset="demo", overrides=as_overrides(values)))
    assert {key: config[key] for key in values} == values


def test_seeds_come_from_the_command_line_as_text() -> None:
    assert load_sweep("table6", seeds=["0", "7"]).seeds == (0, 7)
    with pytest.raises(ConfigError, match=r'seeds\.1 = "x": Input should be a valid integer'):
        load_sweep("table6", seeds=["0", "x"])
