"""The primary dies while some connections are unprotected: these are reset at once, and the others go on."""

import json
import sys
import tempfile
import textwrap

import pytest

from colo_lab.config import LabConfig
from pairlab import Lab

from .conftest import SERVER

FLIP = 100_000
CLIENT = textwrap.dedent(
    """
    import json, os, socket, sys, threading, time

    guest, found = os.environ[sys.argv[1]], {}

    def connect():
        return socket.create_connection((guest, 80), timeout=20)

    def ask(sock, path):
        sock.sendall(f"GET {path} HTTP/1.1\\r\\n\\r\\n".encode())

    def watched(name, job):
        try:
            what = job()
        except OSError as error:
            what = type(error).__name__
        found[name] = [what, time.monotonic()]

    def waiting():
        # Unprotected, and the client only waits.
        sock = connect()
        ask(sock, "/bytes/200000")
        got = 0
        while got < 200000:
            got += len(sock.recv(1 << 16))
        return len(sock.recv(1 << 16))

    def download():
        sock = connect()
        ask(sock, "/bytes/900000000")
        while data := sock.recv(1 << 16):
            time.sleep(0.005)
        return "ended"

    def requests():
        # Protected: one small request after another.
        sock, count, until = connect(), 0, time.monotonic() + 7
        while time.monotonic() < until:
            ask(sock, f"/page/{count}")
            data = sock.recv(1 << 16)
            if not data.endswith(f"hello from /page/{count}\\n".encode()):
                return repr(data)
            count += 1
            time.sleep(0.002)
        return "went on"

    jobs = [threading.Thread(target=watched, args=(one.__name__, one)) for one in (waiting, download, requests)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    print(json.dumps(found))
    """
)


def unprotected(lab, id_, count):
    return lab.processes()[id_].gauges["flows_unprotected"] >= count


@pytest.mark.usefixtures("privileged")
@pytest.mark.parametrize(("wiring", "family"), [("faithful", "COLO_GUEST"), ("lean", "COLO_GUEST6")])
def test_unprotected_connections_are_reset_and_protected_ones_go_on(wiring, family):
    extra = {"frame": {"heartbeat-interval": "200"}, "frame-s": {"failover": "auto"}}
    secondary = f"{SERVER} --flip {FLIP}"
    lab = Lab(
        LabConfig(guest=SERVER, secondary_guest=secondary, start_timeout=60, watch_lan=True, wiring=wiring, extra=extra)
    )

    def script():
        while not (unprotected(lab, "comp0", 2) and unprotected(lab, "rew0", 2)):
            yield
        lab.fail("host-p")
        while True:
            yield

    with lab, tempfile.TemporaryFile() as out:
        steps = script()
        argv = [sys.executable, "-c", CLIENT, family]
        lab.run_client(argv, timeout=60, interval=0.05, output=out.fileno(), on_tick=lambda _now: next(steps))
        out.seek(0)
        found = json.loads(out.read())
        promoted = lab.frame("secondary")["leadership"]["promotion"]["at"]
        report = lab.report()
    assert found["requests"][0] == "went on", found
    for name in ("waiting", "download"):
        what, when = found[name]
        assert what == "ConnectionResetError", found
        assert 0 < when - promoted < 1.0, f"{name}: {when - promoted:.3f} s after the promotion"
    failover = report["failover"]
    assert [failover[f"connections_{fate}"] for fate in ("continued", "reset", "unknown")] == [1, 2, 0], report["lan"]
    assert report["invariants"]["S3"] == "held", report["invariants_why"]["S3"]
    assert report["invariants"]["S5"] == "held", report["invariants_why"]["S5"]
