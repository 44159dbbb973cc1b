"""The links between the hosts of the lab use keys."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from colo_proto.messages import Query
from colo_runtime.client import ask

from .conftest import CLIENT, SERVER, wait_for


def test_everything_goes_through_with_keys(lab):
    run = lab(
        "--curve", "--guest", SERVER,
        client=f"{CLIENT} http --count 20 && {CLIENT} download --size 3000000 && {CLIENT} upload --size 3000000",
    )  # fmt: skip
    assert run.status == 0, run.err
    assert [line.get("wrong", 0) for line in run.lines] == [0] * len(run.lines)
    assert "violated" not in run.report["invariants"].values()
    assert run.report["compare"]["miscompares"] == 0
    assert not any("curve_refused" in name for one in run.report["processes"] for name in one["counters"])


def test_a_key_that_is_taken_from_the_list_lets_nothing_through(background, tmp_path):
    """The key of the secondary is removed from the list of the mirror: no frame reaches it until the key is back."""
    go, ask_more = tmp_path / "go", f"{CLIENT} http --count 20 --timeout 60"
    wait = f"while [ ! -e {go} ]; do sleep 0.05; done"
    process, read = background("--curve", "--guest", SERVER, client=f"{ask_more} && {wait} && {ask_more}")
    state = read()
    listed = Path(state["directory"]) / "secondary.key"
    pids = {one["id"]: one["pid"] for one in state["processes"]}

    def counter(side, name, key):
        found = ask(state["frames"][side], Query("status"), 5).body["processes"]
        return next(one for one in found if one["id"] == name)["counters"].get(key, 0)

    wait_for(lambda: counter("secondary", "f1", "link.indev.frames_in") > 20, 20, "the first requests")
    right = listed.read_text()
    stranger = tmp_path / "keys"
    subprocess.run([sys.executable, "-m", "colo_cli", "keygen", "--out", stranger], check=True, capture_output=True)
    listed.write_text((stranger / "colo.key").read_text())
    os.kill(pids["m0"], signal.SIGHUP)
    wait_for(lambda: counter("primary", "m0", "link.outdev.curve_refused.unknown_key") > 0, 20, "a refusal")
    before = counter("secondary", "f1", "link.indev.frames_in")
    mirrored = counter("primary", "m0", "link.outdev.frames_out")
    go.touch()
    wait_for(lambda: counter("primary", "m0", "link.outdev.frames_out") > mirrored + 2, 20, "more requests")
    refused = counter("primary", "m0", "link.outdev.curve_refused.unknown_key")
    wait_for(lambda: counter("primary", "m0", "link.outdev.curve_refused.unknown_key") > refused, 20, "another refusal")
    assert counter("secondary", "f1", "link.indev.frames_in") == before
    listed.write_text(right)
    os.kill(pids["m0"], signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert out.count('"wrong": 0') == 2
