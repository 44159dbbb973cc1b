"""The image is small, unprivileged and quick to start, and contains only what is needed."""

import json
import time

from containers.engine import run

MIB = 1 << 20


def inspect(name):
    return json.loads(run("docker", "image", "inspect", name))[0]


def test_it_is_small(image):
    """What the image adds to its base is the program and its dependencies, not a compiler or a package index. The base
    itself is whatever interpreter runs these tests (`base_image.py`), so its size says nothing about the product.
    """
    about = inspect(image)
    base = inspect(about["Config"]["Labels"]["colo.base"])
    print(f"base {base['Size'] / MIB:.1f} MiB, image {about['Size'] / MIB:.1f} MiB")
    assert about["Size"] - base["Size"] < 60_000_000


def test_how_it_is_run(image):
    config = inspect(image)["Config"]
    assert config["Entrypoint"] == ["colo"]
    assert config["User"] == "65532:65532"
    assert config["Healthcheck"]["Test"] == ["CMD", "colo", "health"]
    assert config["Labels"]["org.opencontainers.image.title"] == "colo-proxy"
    assert config["StopSignal"] == "SIGTERM"


def test_it_has_no_sources_no_pip_of_its_own_and_nothing_to_write(image):
    found = run(
        "docker", "run", "--rm", "--read-only", "--cap-drop=ALL", "--network=none", "--entrypoint=sh", image, "-c",
        "ls -d /src /wheels /opt/colo/bin/pip /opt/colo/lib/python3*/site-packages/pip /opt/colo/include; "
        "echo x > /run/colo/file; id -u",
    )  # fmt: skip
    assert found.split() == ["65532"]


def test_the_version_and_a_wrong_command_line(image):
    about = inspect(image)["Config"]["Labels"]
    kind = "interpreted" if about["colo.build"] == about["colo.base"] else "compiled"
    said = run("docker", "run", "--rm", "--network=none", image, "--version")
    assert said.startswith("colo, version")
    assert said.endswith(f"({kind} cores)\n"), "the image has what its build could make"


def test_a_service_is_up_in_less_than_a_second(image):
    """From the process's start to its first log line, by the container's own clock; the best of five."""
    script = (
        "import os, subprocess, time\n"
        "b = time.monotonic()\n"
        "p = subprocess.Popen(['colo', 'compare', '--primary-in', 'tcp://127.0.0.1:9001?server=on', '--secondary-in',"
        " 'tcp://127.0.0.1:9002?server=on', '--outdev', 'tcp://127.0.0.1:9003?server=on', '--http', '127.0.0.1:9100'],"
        " stderr=subprocess.PIPE, text=True)\n"
        "for line in p.stderr:\n"
        "    if 'process.started' in line:\n"
        "        print(time.monotonic() - b); break\n"
        "p.kill()\n"
    )
    best = 60.0
    deadline = time.monotonic() + 120
    while best > 1.0 and time.monotonic() < deadline:
        argv = ("docker", "run", "--rm", "--network=none", "--read-only", "--entrypoint=python3", image, "-c", script)
        best = min(best, float(run(*argv)))
    print(f"a service starts in {best:.2f} s")
    assert best < 1.0
