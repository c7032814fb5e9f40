"""The files of ``cluster/``, and a strict model of the compose fields that they use.

A field that a model does not name is refused, so that a misspelt one cannot pass for a new one.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tests.support.jobs import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
KUBERAY = CLUSTER / "kuberay"
LAUNCHER = CLUSTER / "launcher"

Image = Annotated[str, StringConstraints(pattern=r"^[a-z0-9./_-]+:[\w.-]*\d[\w.-]*$")]
Positive = Annotated[int, Field(ge=1)]
OnlyAll = Annotated[list[Literal["ALL"]], Field(min_length=1, max_length=1)]


def load(path: Path) -> dict[str, Any]:
    """Read a YAML file of one document."""
    (document,) = load_all(path)
    return document


def load_all(path: Path) -> list[dict[str, Any]]:
    """Read a YAML file's documents."""
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def constraints() -> dict[str, str]:
    """Exact versions of ``cluster/constraints.txt`` by package."""
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if not line.startswith("#")]
    return dict(pins)


def images(content: object) -> Iterator[str]:
    """Every value of a key ``image``, ``worker_image`` and so on, at any depth."""
    if isinstance(content, dict):
        for key, value in content.items():
            if re.fullmatch(r"(\w+_)?image", str(key)) and isinstance(value, str):
                yield value
            yield from images(value)
    elif isinstance(content, list):
        for entry in content:
            yield from images(entry)


class Strict(BaseModel):
    """Refuses unknown fields and values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Empty(Strict):
    """No field at all."""


class Healthcheck(Strict):
    test: list[str]
    interval: str
    timeout: str
    retries: Positive
    start_period: str


class Build(Strict):
    context: Literal[".."]
    dockerfile: Literal["cluster/Dockerfile"]
    args: dict[Literal["VARIANT"], Literal["cpu", "cuda"]]


class Healthy(Strict):
    condition: Literal["service_healthy"]


class ComposeService(Strict):
    image: Image
    build: Build | None = None
    init: Literal[True]
    restart: Literal["unless-stopped"]
    depends_on: dict[str, Healthy] | None = None
    command: list[str] | None = None
    environment: dict[str, str]
    secrets: list[str]
    volumes: list[str]
    networks: list[str]
    ports: list[str] | None = None
    healthcheck: Healthcheck
    mem_limit: Annotated[str, StringConstraints(pattern=r"^\d+[mg]$")]
    cap_drop: OnlyAll
    cap_add: list[str] | None = None
    security_opt: Annotated[
        list[Literal["no-new-privileges:true"]], Field(min_length=1, max_length=1)
    ]


class Network(Strict):
    internal: Literal[True] | None = None


class ComposeSecret(Strict):
    environment: str


class Compose(Strict):
    name: Annotated[str, StringConstraints(pattern="^[a-z0-9_]+$")]
    services: dict[str, ComposeService]
    networks: dict[str, Network]
    volumes: dict[str, Empty]
    secrets: dict[str, ComposeSecret]
