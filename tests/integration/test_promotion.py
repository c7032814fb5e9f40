"""Promotions by several processes at once, against a real MLflow server with a database."""

import pytest

from dsts_ray.tracking.connection import connect
from dsts_ray.tracking.promotion import BEFORE, WHY, move_champion
from tests.support.jobs import RunJob
from tests.support.mlflow_server import Server
from tests.support.versions import add_version, promoted_at_once

SCORES = {"1": 0.5, "2": 0.9, "3": 0.7, "4": 0.8, "5": 0.6}


def aliases(server: Server, name: str) -> dict[str, str]:
    found = connect(server.uri).get_registered_model(name).aliases
    return {alias: str(number) for alias, number in found.items()}


@pytest.mark.parametrize("with_champion", [True, False])
def test_of_processes_that_promote_at_once_exactly_one_wins_and_the_others_change_nothing(
    server: Server, run_job: RunJob, with_champion: bool
) -> None:
    """Each has compared its own version with the same champion, or with none, and found it better.

    Then ``--rollback``: back to the champion before, and forth.
    """
    client, name = connect(server.uri), f"decided {with_champion}"
    client.create_registered_model(name)
    numbers = [add_version(server.uri, name, score) for score in SCORES.values()]
    assert numbers == list(SCORES)
    before, *others = numbers
    if with_champion:
        move_champion(uri=server.uri, name=name, version=before, expected=None, tags={})
    tags = {number: client.get_model_version(name, number).tags for number in numbers}
    told = promoted_at_once(server.uri, name, others)
    (winner,) = (number for number, text in told.items() if not text)
    assert all(
        f"now it is {winner}: somebody else promoted meanwhile" in text
        for number, text in told.items()
        if number != winner
    )
    moved = {"champion": winner} | ({"previous": before} if with_champion else {})
    assert aliases(server, name) == moved
    assert not client.get_registered_model(name).tags  # no lock stays
    for number in numbers:
        now = client.get_model_version(name, number).tags
        if number == winner:
            assert now[WHY] == f"{winner} is better"
            assert now[BEFORE] == (before if with_champion else "none")
        else:
            assert now == tags[number]

    rollback = ("promote.py", "--rollback", "--model", name, "--tracking-uri", server.uri)
    back = run_job(*rollback)
    if not with_champion:
        assert back.code == 2
        assert "no alias previous to roll back to" in back.error
        assert aliases(server, name) == moved
        return
    assert back.code == 0, back.err
    assert f"version {before} again, version {winner} is previous" in back.out
    assert aliases(server, name) == {"champion": before, "previous": winner}
    assert run_job(*rollback).code == 0
    assert aliases(server, name) == moved
