"""Images, versions and secrets in all files of ``cluster/``."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from packaging.requirements import Requirement
from packaging.version import Version

import dsts_ray
from tests.support.cluster_files import CLUSTER, constraints, images, load_all
from tests.support.constraints import canonical
from tests.support.jobs import REPOSITORY

FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
PINNED_IMAGE = re.compile(r"[a-z0-9./_-]+:[\w.-]*\d[\w.-]*")
OURS = f"registry.example.com/dsts_ray:{dsts_ray.__version__}"
SECRET = re.compile(
    r"-----BEGIN"
    r"|\b(AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b[0-9a-fA-F]{32,}\b"
    r"|(?<![\w/.-])[A-Za-z0-9+/]{40,}={0,2}(?![\w/.-])"
    r"|://[^\s/:@]+:[^\s/@$]+@"
    r"|(?i:password|passwd|secret|token|api_?key)['\"]?[ \t]*[:=][ \t]*(?!true|false)['\"]?[\w-]{4}"
)


def base_images() -> Iterator[str]:
    """Images that the Dockerfile starts from, not its own stages."""
    stages = re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.MULTILINE)
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        if image not in stages and image != "${VARIANT}":
            yield image


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_images_have_exact_tags_and_ours_the_packages_version(path: Path) -> None:
    for image in (image for content in load_all(path) for image in images(content)):
        assert PINNED_IMAGE.fullmatch(image), image
        if "dsts_ray" in image:
            assert image in (f"{OURS}-cpu", f"{OURS}-cuda")


@pytest.mark.parametrize("image", ["postgres", "postgres:latest", "host:5000/mlflow", "a:${TAG}"])
def test_an_image_without_an_exact_tag_is_refused(image: str) -> None:
    assert not PINNED_IMAGE.fullmatch(image)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_latest_and_nothing_is_secret(path: Path) -> None:
    text = path.read_text()
    assert ":latest" not in text
    if path.name != "constraints.txt":
        assert not SECRET.search(text), SECRET.search(text)


@pytest.mark.parametrize(
    "line",
    [
        "PASSWORD=hunter22",
        "  auth_token: 'abcdef'",
        "token: 3f2a9c",
        "POSTGRES_PASSWORD: mlflow",
        "postgresql://mlflow:hunter22@postgres/mlflow",
        "aws: AKIA" + "ABCDEFGHIJKLMNOP",
        "key: " + "0123456789abcdef" * 2,
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    ],
)
def test_the_scan_finds_secrets(line: str) -> None:
    assert SECRET.search(line)


def test_the_dockerfile_is_pinned_and_not_root() -> None:
    (base,) = set(base_images())
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    stages = set(re.findall(r"^FROM base AS (\w+)", DOCKERFILE, re.MULTILINE))
    assert stages == {"cpu", "cuda"}
    users = re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)
    assert users == ["1000:1000"]
    assert re.search(r"^ENV .*RAY_AUTH_MODE=token", DOCKERFILE, re.MULTILINE)
    for install in re.findall(r"pip install ((?:.*\\\n)*.*)", DOCKERFILE):
        assert "--constraint /opt/constraints.txt" in install


def test_the_image_is_made_of_what_exists_and_nothing_else() -> None:
    ignored = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied: set[str] = set()
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        copied.update(sources.split())
    assert copied == kept
    assert all((REPOSITORY / path).exists() for path in kept)


def test_the_exact_versions_lie_within_the_projects_bounds() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pins = constraints()
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), requirement


def test_ray_has_one_version_everywhere_and_the_tests_run_with_its_minor() -> None:
    version = constraints()["ray"]
    assert Version(version).release[:2] == Version(ray.__version__).release[:2]
    named: set[str] = set()
    for path in FILES:
        named.update(re.findall(r"ray(?:\[[\w,]+\])?==([\w.]+)", path.read_text()))
    assert named == {version}
