"""Overlays of the demo, which are started as the README says: lean wiring, and Prometheus beside the demo."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest

from containers import engine
from containers.engine import run
from lab.conftest import wait_for

COMPARED = 5_000_000


def works(pair):
    pair.await_healthy()
    pair.await_ready()
    found = pair.job("download", f"--size={COMPARED}")
    assert found["wrong"] == 0, found
    assert pair.compared(COMPARED)["bytes_compared"] >= COMPARED


def test_lean(image):
    with engine.project("demo.yaml", "lean.yaml", image=image) as pair:
        pair.up()
        works(pair)
        there = {one.service for one in pair.containers()}
        assert there >= {"m0", "compare", "rew0"}
        assert not there & {"redire0", "redire1", "f1", "f2"}


NOBODY = 65534
PROMETHEUS = (
    'ENTRYPOINT ["/bin/prometheus"]',
    'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]',
    "USER nobody",
)
"""What the public image contains as well, so that the overlay works in the same way."""


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """An image with Debian's Prometheus, and busybox for its health check."""
    folder = tmp_path_factory.mktemp("prometheus")
    try:
        subprocess.run(
            ["apt-get", "download", "-qq", "prometheus", "busybox-static"], cwd=folder, check=True, timeout=300
        )
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"Debian's package sources: {error}")
    unpacked, root = folder / "unpacked", folder / "root"
    for package in folder.glob("*.deb"):
        run("dpkg", "-x", str(package), str(unpacked))
    for name in ("bin", "etc/prometheus", "prometheus", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(unpacked / "usr/bin/prometheus", root / "bin")
    shutil.copy(next(unpacked.glob("**/bin/busybox")), root / "bin")
    for applet in ("sh", "wget"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(f"nobody:x:{NOBODY}:{NOBODY}::/:/bin/sh\n")
    for line in run("ldd", str(root / "bin/prometheus")).splitlines():
        for word in line.split():
            if word.startswith("/"):
                there = root / word.lstrip("/")
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, there)
    os.chown(root / "prometheus", NOBODY, NOBODY)
    name = f"colo-test-prometheus:{os.getpid()}"
    changes = [part for change in PROMETHEUS for part in ("--change", change)]
    packed = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, capture_output=True).stdout
    subprocess.run(["docker", "import", *changes, "-", name], input=packed, check=True, capture_output=True)
    yield name
    run("docker", "rmi", "-f", name, check=False)


def test_prometheus_sees_every_process_and_every_panel_has_something_to_show(image, prometheus):
    env = {"PROMETHEUS_IMAGE": prometheus, "COLO_PROMETHEUS": "127.0.0.1:"}
    with engine.project("demo.yaml", "observability.yaml", image=image, env=env) as pair:
        pair.up(*[name for name in pair.compose("config", "--services").split() if name != "grafana"])
        works(pair)

        def ask(path, **query):
            url = f"http://127.0.0.1:9090/api/v1/{path}?{urlencode(query)}"
            return json.loads(pair.exec("prometheus", "wget", "-q", "-O", "-", url))["data"]

        def up():
            return {one["metric"]["id"] for one in ask("query", query="colo_ready == 1")["result"]}

        expected = {one["id"] for host in ("frame", "frame-s") for one in pair.status(host)["processes"]}
        expected = {name for name in expected if not name.startswith("netdev")} | {"frame-p", "frame-s"}
        wait_for(lambda: up() >= expected, 60, f"all of {expected} to be scraped")
        rules = [one for group in ask("rules")["groups"] for one in group["rules"]]
        assert len(rules) > 5
        assert [one["name"] for one in rules if one["health"] == "err"] == []
        dashboard = json.loads((Path(engine.COMPOSE) / "observability/dashboard.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                # Nothing was dropped, and no checkpoint was requested for any reason.
                rare = "> 0" in target["expr"] or "checkpoints_wanted" in target["expr"]
                assert rare or ask("query", query=target["expr"])["result"], target["expr"]
