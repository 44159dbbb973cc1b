"""`colo frame --on-change`: a real script is told of each change, and the frame does not wait for it."""

import time

from colo_frame.config import FrameConfig
from colo_frame.frame import Frame
from colo_frame.shell import FrameShell
from colo_proto.endpoint import parse_endpoint
from colo_runtime.options import CommonConfig
from runtime_helpers import Log


def test_a_script_is_told_of_a_change(bench, tmp_path):
    said, script = tmp_path / "said", tmp_path / "script"
    script.write_text(
        '#!/bin/sh\necho "$COLO_PAIR $COLO_ID $COLO_SIDE $COLO_BEFORE $COLO_AFTER $COLO_ON $COLO_FENCE $COLO_WRITES"'
        f" >> {said}\necho told\n"
    )
    script.chmod(0o755)
    config = FrameConfig(id="frame-p", peer=bench.ipc("peer"), pair="x", on_change=str(script))
    core, log = Frame(config, 7, time.monotonic()), Log()
    endpoints = {
        "listen": parse_endpoint(bench.ipc("control") + "?server=on"),
        "peer": parse_endpoint(bench.ipc("peer") + "?server=on"),
    }
    shell = bench.add(FrameShell(core, endpoints, CommonConfig(id="frame-p"), log))
    # A filter has sent our question to the LAN, and nobody answers.
    leadership = core.side.ownership.leadership
    bench.until(lambda: leadership.claim_sent(leadership.count, time.monotonic()) or log.events("hook.ended"), (shell,))
    assert said.read_text() == "x frame-p primary asking alone unanswered 2 1\n"
    (ended,) = log.events("hook.ended")
    assert (ended["status"], ended["output"], ended["after"]) == (0, "told", "alone")
    assert shell.snapshot().counters["hooks_run"] == 1
