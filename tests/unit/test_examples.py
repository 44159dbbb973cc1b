"""The examples of the READMEs run, and say what they say they say."""

import shutil
import sys
from pathlib import Path

import pytest

from examples import READMES, examples, run

pytestmark = pytest.mark.slow

ALL = examples()


@pytest.mark.skipif(not (Path(sys.executable).parent / "colo").exists(), reason="needs `colo` as a command")
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("example", [one for one in ALL if not one.needs], ids=lambda one: one.name)
def test_it_does_what_is_printed(example, tmp_path):
    run(example, tmp_path)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_each_service_has_two(readme):
    mine = [one for one in ALL if one.name.rpartition("-")[0] == readme.parent.name.removeprefix("colo_")]
    assert len(mine) >= 2
    assert {one.needs for one in mine} <= {"", "root"}
