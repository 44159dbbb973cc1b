"""Log lines: JSON unless for people, whatever a field is called or holds."""

import json
import subprocess
import sys

import pytest

from where import PYTHONPATH

PROGRAM = """
import sys
from colo_runtime.logs import configure
log = configure(sys.argv[1], sys.argv[2], role="mirror", id="m0")
for level in ("debug", "info", "warning", "error"):
    log(level, "thing.happened", number=1, level=level, event="x", data=b"\\xff", nested={"a": [1]})
"""


def lines(level, form):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, form], env={"PYTHONPATH": PYTHONPATH},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_least_level(level, count):
    assert len(lines(level, "json")) == count


def test_json_has_everything_on_one_line():
    (line,) = [json.loads(text) for text in lines("error", "auto")]
    assert (line["event"], line["role"], line["id"], line["number"]) == ("thing.happened", "mirror", "m0", 1)
    # A core's fields may be called anything, and hold bytes.
    assert (line["level"], line["event_"], line["level_"]) == ("error", "x", "error")
    assert "xff" in line["data"]
    assert line["timestamp"].endswith("Z")


def test_for_people():
    (line,) = lines("error", "console")
    assert "thing.happened" in line
    assert not line.startswith("{")
