"""The runs of a sweep: what is shared, what may be overridden, what they are called."""

from pathlib import Path

import pytest

from dsts_ray.config.load import flatten, load_config, run_name
from dsts_ray.config.sweep import load_sweep
from dsts_ray.config.trials import describe_plan, plan_sweep, shared_runs
from dsts_ray.errors import ConfigError


def test_a_row_goes_over_the_command_line_over_the_preset() -> None:
    plan = plan_sweep(load_sweep("ablations", preset="demo"), ["dsts.num_neurons=4"])
    neurons = {trial.row: trial.config.dsts.num_neurons for trial in plan.trials}
    assert (neurons["DSTS"], neurons["N = 15"], neurons["w/o UDL"]) == (4, 15, 4)
    assert {trial.config.preset for trial in plan.trials} == {"demo"}


def test_a_trial_is_the_run_of_its_configuration() -> None:
    plan = plan_sweep(load_sweep("table5", preset="demo", seeds=[3]), ["optim.lr=0.5"])
    trial = next(trial for trial in plan.trials if trial.row == "DSTS w/o UDL")
    overrides = ["optim.lr=0.5", "udl.enabled=false", "train.seed=3", "tracking.model_name="]
    assert trial.name == run_name(load_config(preset="demo", overrides=overrides))
    assert flatten(trial.config)["udl.enabled"] is False


def test_rows_that_resolve_alike_are_one_run(tmp_path: Path) -> None:
    path = tmp_path / "same.yaml"
    path.write_text("title: T\nrows:\n  a: {}\n  b: {dsts.num_neurons: 6}\n  c: {dsts.skip: false}")
    plan = plan_sweep(load_sweep(str(path)))
    assert [len(plan.trials), plan.num_runs] == [3, 2]
    assert [trial.row for trial in plan.unique_trials().values()] == ["a", "c"]


def test_baselines_are_shared_between_tables() -> None:
    changes = {"preset": "demo", "seeds": [0, 1]}
    plan = plan_sweep(load_sweep("ablations", **changes), ["train.num_epochs=3"])
    shared = shared_runs(plan, changes)
    assert shared["table3"] == 6
    assert shared["table6"] == 4  # N = 10 is not the demo's
    assert "search" not in shared
    other = plan_sweep(load_sweep("ablations", **changes), ["train.num_epochs=2"])
    assert not {t.name for t in plan.trials} & {t.name for t in other.trials}


def test_a_plans_name_changes_with_its_runs_and_its_search_alone() -> None:
    def name(*overrides: str, **changes: object) -> str:
        return plan_sweep(load_sweep("n_by_l", **changes), overrides).name

    assert name() == name() == name("storage.path=elsewhere")
    assert len({name(), name("optim.lr=0.1"), name(scheduler="asha"), name(seeds=[1])}) == 4


@pytest.mark.parametrize(
    ("sweep", "override", "message"),
    [
        ("table3", "dsts.specialization=gates", "every row of table3 sets it itself"),
        ("n_by_l", "dsts.num_layers=2", "every row of n_by_l sets it itself"),
        ("table3", "train.seed=1", "use --seeds"),
        ("table3", "name=mine", "every run of a sweep has a name of its own"),
        ("table3", "preset=demo", "use --preset"),
        ("table3", "tracking.metric=val/top5", "use --metric"),
        ("table3", "tracking.model_name=x", "a sweep registers nothing"),
        ("table3", "dsts.num_neuron=3", "did you mean dsts.num_neurons?"),
    ],
)
def test_what_cannot_be_overridden_is_said_once(sweep: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(sweep), [override])
    assert str(caught.value).count(message) == 1


def test_an_impossible_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    rows = "  good: {}\n  odd: {dsts.groups: 7}\n  odder: {dsts.groups: 5}"
    path.write_text(f"title: T\nrows:\n{rows}")
    with pytest.raises(ConfigError, match=r"(?s)row 'odd' of sweep rows: .*row 'odder' of"):
        plan_sweep(load_sweep(str(path)))


def test_a_dry_run_tells_trials_resources_and_what_is_shared() -> None:
    plan = plan_sweep(load_sweep("table5", preset="demo", seeds=[0]))
    told = describe_plan(plan, {"table3": 1})
    for trial in plan.trials:
        assert trial.name in told
    assert "2 runs (searcher grid, scheduler none)" in told
    assert "2 workers of 0.25 CPU, decoders of 0.5 CPU: 1 for training" in told
    assert "1 runs shared with table3" in told
    assert "optim.lr: Range(low=0.0005" in describe_plan(plan_sweep(load_sweep("search")), {})
    assert "names change" not in told


def test_a_dry_run_says_that_an_alias_is_yet_to_be_looked_up() -> None:
    alias, version = "models:/m@champion", "models:/m/3"
    told = [
        describe_plan(plan_sweep(load_sweep("lr"), [f"model.weights={weights}"]), {})
        for weights in (alias, version)
    ]
    says = f"names change with the version that {alias} means when the sweep begins"
    assert [says in text for text in told] == [True, False]
