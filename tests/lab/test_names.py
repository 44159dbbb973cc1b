"""A name server that does not answer delays the link that connects to a name, and nothing else in the process.

The processes run in a network and mount namespace of their own, whose only name server gives no answers.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lab.conftest import wait_for
from where import PYTHONPATH

COLO = [sys.executable, "-P", "-m", "colo_cli"]
WITHIN = "ip link set lo up && mount --bind resolv.conf /etc/resolv.conf && exec sleep 120"


@pytest.fixture
def silent_resolver(tmp_path):
    """`start(*argv, **more)`, which runs a program whose name server never answers, and the socket that receives the
    questions.
    """
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:20 attempts:1\n")
    command = ["unshare", "--net", "--mount", "--propagation", "private"]
    if os.geteuid():
        command += ["--user", "--map-root-user"]
    with contextlib.ExitStack() as stack:

        def start(argv, **more):
            env = {**os.environ, "PYTHONPATH": PYTHONPATH}
            one = stack.enter_context(
                subprocess.Popen(argv, cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE, **more)
            )
            stack.callback(one.kill)
            return one

        holder = start([*command, "sh", "-c", WITHIN])
        enter = ["nsenter", f"--target={holder.pid}", "--net", "--mount", f"--wd={tmp_path}"]
        if os.geteuid():
            enter += ["--user", "--preserve-credentials"]

        def ready():
            assert holder.poll() is None, holder.stderr.read()
            here = ["grep", "-q", "timeout:20", "/etc/resolv.conf"]
            return subprocess.run([*enter, *here], check=False, capture_output=True).returncode == 0

        wait_for(ready, 20, "the namespaces")
        hears = start(
            [*enter, sys.executable, "-c",
             ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 53))\n"
             "while True: s.recv(512); print('asked', flush=True)")],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        yield lambda *argv: start([*enter, *argv]), hears


def test_only_the_link_that_asks_waits(silent_resolver, tmp_path):
    start, hears = silent_resolver
    control = f"ipc://{tmp_path}/control.sock"
    filter_ = start(
        *COLO, "redirector", "--id=f1", "--indev=tcp://primary.example:9003?reliable=on", "--insecure=on",
        f"--netdev=ipc://{tmp_path}/red0.sock?server=on", f"--frame={control}", "--http=127.0.0.1:9101",
    )  # fmt: skip
    assert hears.stdout.readline() == "asked\n"
    # The resolver was asked, and the thread that asked it waits. Only now the frame comes.
    start(*COLO, "frame", "--id=frame", "--side=secondary", f"--listen={control}?server=on", "--http=127.0.0.1:9100")
    began = time.monotonic()

    def welcomed():
        assert filter_.poll() is None, filter_.stderr.read()
        asked = start(*COLO, "health", "--http=127.0.0.1:9101", "--ready")
        return asked.wait() == 0

    wait_for(welcomed, 15, "the filter to be ready")
    assert time.monotonic() - began < 10
    began = time.monotonic()
    filter_.send_signal(signal.SIGTERM)
    lines = [json.loads(line) for line in filter_.stderr]
    assert filter_.wait() == 0
    assert time.monotonic() - began < 5
    assert lines[-1]["event"] == "process.stopped"
    assert not [one for one in lines if one["event"] in ("link.silent", "message.refused")]


def test_a_question_to_a_frame_ends_in_time(silent_resolver):
    start, _ = silent_resolver
    began = time.monotonic()
    asked = start(*COLO, "status", "--frame=tcp://primary.example:9003", "--timeout=1")
    assert asked.wait() != 0
    assert "no answer within 1 s" in asked.stderr.read()
    assert time.monotonic() - began < 10
