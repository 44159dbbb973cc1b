"""`colo failover` and `colo resync` against real frames."""

import subprocess
import sys

import pytest

from colo_cli.orders import order_failover, order_resync
from colo_proto.errors import StartError
from colo_proto.messages import Query
from colo_runtime.client import ask
from runtime_helpers import PATIENCE, free_port

pytestmark = pytest.mark.slow


def frame(bench, side, *more):
    """Start one; its control endpoint."""
    where = bench.ipc(side)
    bench.colo(
        "frame", "--id", f"frame-{side[0]}", "--side", side, "--listen", where, "--heartbeat-interval", "100", *more
    )
    assert ask(where, Query("status"), PATIENCE).ok
    return where


@pytest.fixture
def pair(bench):
    peer = f"tcp://127.0.0.1:{free_port()}"
    both = frame(bench, "primary", "--peer", peer + "?server=on"), frame(bench, "secondary", "--peer", peer)
    # A secondary without any filter is none.
    ends = [f"tcp://127.0.0.1:{free_port()}?server=on" for _ in range(2)]
    bench.colo("redirector", "--id", "f2", "--frame", both[1], "--indev", ends[0], "--outdev", ends[1])
    bench.until(lambda: ask(both[1], Query("status"), PATIENCE).body["leadership"]["promotable"], ())
    return both


def test_a_planned_failover(pair):
    primary, secondary = pair
    assert order_failover(secondary, PATIENCE) == "the secondary has the client LAN, fence 1"
    assert ask(primary, Query("status"), PATIENCE).body["leadership"]["state"] == "fenced"
    assert order_failover(secondary, PATIENCE) == "the secondary has the client LAN, fence 1", "it has it already"


def test_a_resync(pair):
    primary, _ = pair
    assert order_resync(primary, PATIENCE) == "compared again since epoch 1"


def test_each_order_is_for_one_side(pair):
    primary, secondary = pair
    with pytest.raises(StartError, match="secondary's frame"):
        order_failover(primary, PATIENCE)
    with pytest.raises(StartError, match="primary's frame"):
        order_resync(secondary, PATIENCE)


def test_without_the_other_side(bench):
    secondary = frame(bench, "secondary")
    with pytest.raises(StartError, match="no primary was ever heard.*--force"):
        order_failover(secondary, PATIENCE)
    assert "fence 1" in order_failover(secondary, PATIENCE, force=True)
    with pytest.raises(StartError, match="there is no secondary"):
        order_resync(frame(bench, "primary"), PATIENCE)


def test_nobody_there(bench):
    with pytest.raises(StartError, match="no answer"):
        order_failover(bench.ipc("nobody"), 0.2)


@pytest.mark.parametrize("command", ["failover", "resync"])
def test_the_command_line(bench, command):
    argv = [sys.executable, "-m", "colo_cli", command, "--frame", bench.ipc("nobody"), "--timeout", "0.2"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"colo {command}: ")
    assert done.stderr.count("\n") == 1
