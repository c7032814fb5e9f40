"""MLflow's server with PostgreSQL, as a compose file."""

import copy

import pytest
from mlflow.cli import server
from pydantic import ValidationError

from tests.support.cluster_files import CLUSTER, Compose, load

CONTENT = load(CLUSTER / "mlflow_compose.yaml")
COMPOSE = Compose.model_validate(CONTENT)


def test_an_unknown_field_is_refused() -> None:
    broken = copy.deepcopy(CONTENT)
    broken["services"]["mlflow"]["port"] = ["5000:5000"]
    with pytest.raises(ValidationError, match=r"services\.mlflow\.port"):
        Compose.model_validate(broken)


def test_it_listens_on_loopback_unless_another_address_is_named() -> None:
    published = [port for service in COMPOSE.services.values() for port in service.ports or []]
    assert published == ["${MLFLOW_ADDRESS:-127.0.0.1}:5000:5000"]
    assert COMPOSE.networks["store"].internal
    assert COMPOSE.services["postgres"].networks == ["store"]


def test_what_services_name_is_declared() -> None:
    for service in COMPOSE.services.values():
        assert set(service.networks) <= COMPOSE.networks.keys()
        assert set(service.secrets) <= COMPOSE.secrets.keys()
        assert set(service.depends_on or {}) <= COMPOSE.services.keys()
        volumes = {volume.partition(":")[0] for volume in service.volumes}
        assert volumes <= COMPOSE.volumes.keys()


def test_the_password_comes_from_outside_and_stands_in_no_command() -> None:
    (name,) = COMPOSE.secrets
    assert COMPOSE.secrets[name].environment == name.upper()
    for service in COMPOSE.services.values():
        assert service.secrets == [name]
    command = " ".join(COMPOSE.services["mlflow"].command or [])
    assert "postgresql://mlflow@postgres" in command
    assert command.count(f"/run/secrets/{name}") == 1


def test_mlflow_knows_the_options_and_keeps_its_host_check() -> None:
    command = (COMPOSE.services["mlflow"].command or [])[-1]
    words = command.partition("exec mlflow ")[2].split()
    known = {name for parameter in server.params for name in parameter.opts}
    assert words[0] == "server"
    assert {word for word in words if word.startswith("--")} <= known
    assert "--allowed-hosts" in words
    hosts = COMPOSE.services["mlflow"].environment["ALLOWED_HOSTS"].split(",")
    assert hosts == ["localhost:5000", "127.0.0.1:5000", "${MLFLOW_ADDRESS:-127.0.0.1}:5000"]
