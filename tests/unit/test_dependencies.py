"""What is imported is declared, and what is declared has its line in the README."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
OURS = {*sys.stdlib_module_names, "dsts_ray", "tests"}


def canonical(requirement: str) -> str:
    """Return a distribution's name as the package index spells it, without extras and bounds."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def undeclared(folders: tuple[str, ...], declared: set[str]) -> Iterator[str]:
    """Yield what the Python files of these folders import and none of the declared brings."""
    distributions = packages_distributions()
    for path in (path for folder in folders for path in (REPOSITORY / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for package in {name.partition(".")[0] for name in names} - OURS:
                if declared.isdisjoint(map(canonical, distributions[package])):
                    yield package


def test_imported_packages_are_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    declared = {canonical(entry) for entry in (*PROJECT["dependencies"], *extras["onnx"])}
    assert set(undeclared(("dsts_ray", "jobs"), declared)) == set()
    for_tests = {canonical(entry) for entry in extras["test"]}
    assert set(undeclared(("tests",), declared | for_tests)) == set()


def test_the_readme_says_what_each_dependency_is_for() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    table = readme.partition("What each dependency is for:")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")][2:]
    named = {
        canonical(name.strip()) for row in rows for name in re.sub(r"\[.*\]", "", row).split(",")
    }
    assert {canonical(entry) for entry in PROJECT["dependencies"]} == named
