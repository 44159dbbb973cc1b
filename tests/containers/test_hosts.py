"""Two projects, one for each host, that share only a replication network and are started in any order."""

import contextlib
import os
import sys

import pytest

from containers import engine
from containers.engine import EngineError, run
from lab.conftest import inhabitants

CLIENT = """
services:
  client:
    image: ${COLO_IMAGE}
    user: "60609:60609"
    networks: [lan]
    environment: {COLO_GUEST: "${COLO_GUEST}", COLO_GUEST6: "${COLO_GUEST6}"}
    entrypoint: [sleep, infinity]
    healthcheck: {disable: true}
    stop_signal: SIGKILL
"""
SHARED = """
networks:
  replication: {external: true, name: NAME}
"""
GUESTS = ("guest-net", "guest")


@pytest.fixture
def hosts(image, tmp_path):
    """The projects (primary, secondary), which are not started, and the network between them."""
    network = f"colo{os.getpid()}repl"
    run("docker", "network", "create", "--internal", "--label", f"colo.test={os.getpid()}", network)
    shared, client = tmp_path / "shared.yaml", tmp_path / "client.yaml"
    shared.write_text(SHARED.replace("NAME", network))
    client.write_text(CLIENT)
    keys = {role: key_files(tmp_path, role, other) for role, other in (("a", "b"), ("b", "a"))}
    with contextlib.ExitStack() as stack:
        stack.callback(run, "docker", "network", "rm", network, check=False)
        first = stack.enter_context(
            engine.project("primary.yaml", image=image, env=keys["a"], extra=[str(shared), str(client)])
        )
        # Each host has a LAN of its own here, because Docker assigns a subnet only once; the guests are the same.
        guest = {name: first.env[name] for name in ("COLO_GUEST", "COLO_GUEST6")}
        yield (
            first,
            stack.enter_context(
                engine.project("secondary.yaml", image=image, env=guest | keys["b"], extra=[str(shared)])
            ),
        )


def key_files(folder, name, other):
    """Keys of a host and the secret of the pair as `colo keygen` makes them, readable for the containers' group; the
    other host is its peer.
    """
    for one in (name, other):
        if not (folder / f"{one}.key").exists():
            run(sys.executable, "-m", "colo_cli", "keygen", "--out", str(folder), "--name", one)
            os.chown(folder / f"{one}.key_secret", 0, engine.GROUP)
            os.chmod(folder / f"{one}.key_secret", 0o640)
    pair = folder / "pair.pair_secret"
    if not pair.exists():
        run(sys.executable, "-m", "colo_cli", "keygen", "--out", str(folder), "--name", "pair", "--pair")
        os.chown(pair, 0, engine.GROUP)
        os.chmod(pair, 0o640)
    return {
        "COLO_SECRET_FILE": f"{folder}/{name}.key_secret",
        "COLO_PEERS_FILE": f"{folder}/{other}.key",
        "COLO_PAIR_FILE": str(pair),
    }


def namespaces(project):
    found = set()
    for one in project.containers():
        if one.pid:
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{one.pid}/ns/net").st_ino)
    return found - {os.stat("/proc/self/ns/net").st_ino}


def test_two_hosts(hosts):
    primary, secondary = hosts
    # The secondary starts first, and its guest starts last.
    others = [name for name in secondary.compose("config", "--services").split() if name not in GUESTS]
    secondary.up(*others)
    secondary.await_healthy(*[name for name in others if name not in ("netdev", "rew0")])
    primary.up()
    secondary.up()
    for host in hosts:
        host.await_healthy()
        host.await_ready(["frame"])
    assert primary.job("download", "--size=20000000")["wrong"] == 0
    assert primary.status()["peer"]["alive"]
    assert secondary.status()["peer"]["alive"]
    counters = primary.compared(20_000_000)
    assert counters["bytes_compared"] >= 20_000_000
    assert not counters.get("released.unprotected", 0)
    assert "COLO_INSECURE=off" in primary.container("m0").about["Config"]["Env"]

    # The other host is started again while the primary runs. Its rewriter knows no connection, and compare on the
    # primary has no peer for some time. Connections that come later are compared again.
    secondary.down()
    secondary.up()
    secondary.await_healthy()
    secondary.await_ready(["frame"])
    found = primary.job("download", "--size=5000000")
    assert found["wrong"] == 0, found

    inodes = namespaces(primary) | namespaces(secondary)
    assert inodes
    sandboxes = [one.about["NetworkSettings"]["SandboxKey"] for host in hosts for one in host.containers()]
    for host in hosts:
        host.stop()
        host.compose("down", "-v")
        assert host.leftovers() == {"container": [], "network": [], "volume": []}
    assert inhabitants(inodes) == []
    # The engine keeps the empty files for a minute; the namespaces that they named no longer exist.
    assert [path for path in sandboxes if path and os.path.exists(path) and os.stat(path).st_ino in inodes] == []
    links = run("ip", "-o", "link")
    assert not any(name in links for name in (f": lan@{primary.name}", "colo-lan", "colo-guest"))


def test_a_project_that_cannot_start_leaves_nothing(image):
    """When `up` fails half way (because of an invalid subnet), everything is taken down as well."""
    with engine.project("demo.yaml", image=image, env={"COLO_LAN": "300.1.1"}) as one:
        with pytest.raises(EngineError):
            one.up()
        one.down()
        assert one.leftovers() == {"container": [], "network": [], "volume": []}
