"""The pair in containers: it is healthy, it works, it has no privileges, and one command shows all of it."""

import inspect
import json

import pytest

import tap_client
from containers.engine import run

FILTERS = {"m0", "redire1", "redire0", "netdev-p"}
NET_ADMIN = 1 << 12


def test_a_client_downloads_200_megabytes(pair):
    found = pair.job("download", "--size=200000000")
    print(f"healthy after {pair.seconds:.0f} s; download {found}")
    assert found["wrong"] == 0
    assert found["bytes"] == 200_000_000
    # What the client received was compared, and not only let through.
    counters = pair.compared(200_000_000)
    assert counters["bytes_compared"] >= 200_000_000
    assert not counters.get("released.mode", 0)
    assert not counters.get("released.unprotected", 0)


def test_an_upload_and_ipv6(pair):
    assert pair.job("upload", "--size=20000000")["wrong"] == 0
    assert pair.job("-6", "download", "--size=5000000")["wrong"] == 0
    assert pair.job("rr", "--udp", "--count=50")["wrong"] == 0


def test_one_command_shows_the_whole_host(pair):
    primary, secondary = pair.status(), pair.status("frame-s")
    ids = {one["id"] for one in primary["processes"] if one["state"] == "live"}
    assert ids >= FILTERS
    assert len(ids - FILTERS) == 1, "a compare that is called after its container"
    assert {one["id"] for one in secondary["processes"]} >= {"f1", "f2", "rew0", "netdev-s"}
    assert primary["peer"]["alive"]
    assert primary["table"]["version"] >= 1
    for frame in ("frame", "frame-s"):
        text = pair.exec(frame, "colo", "status", check=False)
        assert text.startswith(("protected;", "degraded ("))
        assert text.splitlines()[0].endswith("the client LAN is at the primary")
    table = pair.exec("frame", "colo", "status", check=False)
    assert "redire1" in table


INSIDE = """
import json, os
status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/1/status") if ":\\t" in line)
mounts = [line.split() for line in open("/proc/1/mountinfo")]
def writable(path):
    try:
        name = os.path.join(path, ".probe")
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY)); os.unlink(name)
        return True
    except OSError:
        return False
print(json.dumps({
    "caps": {k: int(status[k], 16) for k in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")},
    "new": status["NoNewPrivs"], "seccomp": status["Seccomp"], "uid": status["Uid"].split(), "groups": status["Groups"],
    "root": next(m[5].split(",")[0] for m in mounts if m[4] == "/"),
    "writable": [p for p in ("/", "/etc", "/opt/colo", "/usr", "/var", "/tmp", "/home", "/run") if writable(p)],
    "binds": sorted(m[4] for m in mounts if m[4].startswith("/run") and m[4] != "/run"),
    "devices": sorted(n for n in os.listdir("/dev")),
    "interfaces": sorted(n for n in os.listdir("/sys/class/net")),
    "socket": os.path.exists("/var/run/docker.sock"),
}))
"""


def test_least_privilege_from_inside(pair):
    containers = pair.containers()
    assert len(containers) >= 18
    users = {}
    host = set(json.loads(run("ip", "-j", "link")) and [one["ifname"] for one in json.loads(run("ip", "-j", "link"))])
    for one in containers:
        seen = json.loads(pair.exec(one.service, "python3", "-c", INSIDE))
        netdev = one.service.startswith("netdev")
        allowed = NET_ADMIN if netdev else 0
        assert set(seen["caps"].values()) <= {0, allowed}, one.service
        assert seen["caps"]["CapEff"] == allowed, one.service
        assert seen["caps"]["CapBnd"] == allowed, one.service
        assert seen["new"] == "1", f"{one.service}: no-new-privileges"
        assert seen["seccomp"] == "2", f"{one.service}: a seccomp filter"
        assert len(set(seen["uid"])) == 1, one.service
        assert (seen["uid"][0] == "0") == netdev, one.service
        users.setdefault(seen["uid"][0], set()).add(one.service.partition("-")[0] if netdev else one.service)
        assert seen["root"] == "ro", one.service
        assert seen["writable"] == [], one.service
        assert not seen["socket"], one.service
        assert ("net" in seen["devices"]) == netdev, f"{one.service}: /dev/net/tun"
        assert "docker0" not in seen["interfaces"], f"{one.service} sees the host's interfaces"
        assert len(host) > len(seen["interfaces"]), one.service
        if one.service.startswith(("client", "guest")) and "net" not in one.service:
            assert seen["binds"] == [], f"{one.service}: no way to the proxy's sockets"
        else:
            assert seen["binds"] == ["/run/colo"], one.service
    clients = {name for name in users.pop("60609") if name.startswith("client")}
    assert len(clients) >= 5, "clients are one user, and have no sockets"
    assert all(len(services) == 1 for services in users.values()), users


ASK = (
    inspect.getsource(tap_client)
    + """
import json, os, socket, sys
from colo_netdev.hold import offer_netns
said = []
for tap, lease in json.loads(sys.argv[1]):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(20)
        sock.connect("/run/colo/netdev.sock")
        try:
            if tap.startswith("@"):
                offer_netns(sock, tap[1:], "m0")
            else:
                os.close(fetch_tap(sock, tap, "m0", lease=lease)[1])
            said.append("")
        except RefusedError as error:
            said.append(str(error))
print(json.dumps(said))
"""
)
EVERYTHING = (("lan", False), ("lan", True), ("guest", False), ("guest", True), ("@lan", False), ("@guest", False))


@pytest.mark.parametrize(
    ("service", "may"),
    [
        ("m0", {("lan", False), ("lan", True), ("guest", False), ("guest", True)}),
        ("redire1", {("guest", False), ("guest", True)}),
        ("redire0", {("lan", True)}),
        ("compare", set()),
        ("frame", set()),
        ("f2", {("lan", True)}),
    ],
)
def test_a_service_gets_its_own_taps_alone(pair, service, may):
    """netdev asks the kernel who a process is, so it does not matter what the process calls itself."""
    said = json.loads(pair.exec(service, "python3", "-c", ASK, json.dumps(EVERYTHING)))
    assert {what for what, why in zip(EVERYTHING, said, strict=True) if not why} == may
    assert all("may not" in why or "lease=on only" in why for why in said if why)


TAKE = """
import os
try:
    os.rename("/run/colo/netdev.sock", "/run/colo/other.sock")
    print("done")
except PermissionError:
    print("not permitted")
"""


def test_no_service_takes_the_place_of_another_s_socket(pair):
    for service in ("redire0", "lan", "frame"):
        assert pair.exec(service, "python3", "-c", TAKE) == "not permitted\n"


@pytest.mark.parametrize("service", ["netdev", "redire1"])
def test_only_what_it_needs_is_reachable(pair, service):
    """A filter that has no link to the other host is on no network with it."""
    there = pair.container(service).about["NetworkSettings"]["Networks"]
    assert not any(name.endswith(("_replication", "_lan")) for name in there)


def test_logs_are_json(pair):
    lines = run("docker", "logs", pair.container("m0").id, timeout=60)
    done = run("sh", "-c", f"docker logs {pair.container('m0').id} 2>&1")
    events = [json.loads(line) for line in (lines + done).splitlines()]
    assert "process.ready" in [one["event"] for one in events]
    assert {one["id"] for one in events} == {"m0"}


def test_a_stop_drains(pair):
    """After SIGTERM a process drains first, and then ends by itself with status 0 inside the grace period."""
    target = pair.container("redire0")
    pair.compose("stop", "redire0")
    try:
        after = pair.container("redire0")
        assert after.about["State"]["ExitCode"] == 0
        text = run("sh", "-c", f"docker logs --tail 20 {target.id} 2>&1")
        events = [json.loads(line)["event"] for line in text.splitlines()]
        assert events.index("process.draining") < events.index("process.stopped") == len(events) - 1
    finally:
        pair.compose("start", "redire0")
        pair.await_ready()
