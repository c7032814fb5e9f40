"""Commands of ``cluster/README.md``, as far as they run without a cluster."""

import re
import runpy
import shlex
import sys

import pytest
from ray.dashboard.modules.job.cli import submit

from tests.support.cluster_files import CLUSTER
from tests.support.jobs import REPOSITORY

README = (CLUSTER / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
COMMANDS = [shlex.split(line, comments=True) for line in BLOCKS.splitlines()]
JOBS = [words[words.index("python") :] for words in COMMANDS if "python" in words]


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_jobs_take_their_arguments(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, script, *arguments = words
    asked = "--dry-run" if script in ("jobs/train.py", "jobs/tune.py") else "--help"
    monkeypatch.setattr(sys, "argv", [script, *arguments, asked])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr().err


def test_submissions_use_options_that_ray_has() -> None:
    known = {name for parameter in submit.params for name in parameter.opts}
    submissions = [words for words in COMMANDS if words[:3] == ["ray", "job", "submit"]]
    assert submissions
    for words in submissions:
        given = {word for word in words[: words.index("--")] if word.startswith("--")}
        assert given <= known


def test_every_file_is_named_and_every_named_file_exists() -> None:
    files = {str(path.relative_to(CLUSTER)) for path in CLUSTER.rglob("*") if path.is_file()}
    table = {name for line in README.splitlines() for name in re.findall(r"^\| `([^`]+)`", line)}
    assert table == files - {"README.md", "Dockerfile.dockerignore"}
    assert set(re.findall(r"cluster/([\w./]+\w)", BLOCKS)) <= files
