"""Files of the lab: regular ones are replaced as a whole, anything else is written to and stays what it is."""

import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from colo_lab.files import write_json
from colo_proto.errors import ConfigError
from where import PYTHONPATH


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_regular_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("old and much longer than the new one")
    before = path.stat().st_ino
    write_json(str(path), {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_ino != before
    assert names(tmp_path) == ["out.json"]


def test_of_a_link_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "out.json")
    for value in (1, 2):
        write_json(str(link), value)
        assert link.is_symlink()
        assert json.loads((tmp_path / "real" / "out.json").read_text()) == value
    assert names(tmp_path / "real") == ["out.json"]


def test_a_fifo_stays_one(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    write_json(str(path), [1])
    reader.join(20)
    assert json.loads(got[0]) == [1]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_stays_one(tmp_path):
    """A link to a device of this test's own machine: /dev/null takes anything, and may not be harmed by a failure."""
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    if os.geteuid() == 0:
        null = tmp_path / "device"
        try:
            os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            null.write_bytes(b"")
        except OSError:
            pytest.skip("needs to make a device and to open it")
        link.unlink()
        link.symlink_to(null)
        write_json(str(null), {})
        assert stat.S_ISCHR(null.stat().st_mode)
    write_json(str(link), {})
    assert link.is_symlink()
    assert stat.S_ISCHR(link.stat().st_mode)


@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_gets_it_after_what_was_there(tmp_path, to):
    script = (
        "import os; from colo_lab.files import write_json; os.write(1, b'first\\n');"
        "write_json('/proc/self/fd/1', {'a': 1}); write_json('/proc/self/fd/1', {'a': 2})"
    )
    argv = [sys.executable, "-P", "-c", script]
    env = {"PYTHONPATH": PYTHONPATH}
    if to == "pipe":
        said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    else:
        with (tmp_path / "out").open("w") as out:
            subprocess.run(argv, env=env, stdout=out, check=True)
        said = (tmp_path / "out").read_text()
    head, rest = said.split("\n", 1)
    assert head == "first"
    assert rest.split() == ["{", '"a":', "1", "}", "{", '"a":', "2", "}"]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no/such"):
        write_json(str(tmp_path / "no" / "such"), {})
