"""The Docker engine: the image, projects of compose files, and what a project leaves behind.

Everything is named after the run, so that tests of several checkouts at the same time do not disturb each other, and
nothing is touched that this run has not made.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
SOURCES = (
    "Dockerfile",
    ".dockerignore",
    "pyproject.toml",
    "hatch_build.py",
    "README.md",
    "LICENSE",
    "proto",
    "services",
)
GROUP = 65532
"""The group of all services that use the sockets of a host."""
LABEL = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
STARTED = 240.0
"""Seconds that a slow, loaded machine may take to bring a project up."""


class EngineError(Exception):
    """A command of the engine failed. The message contains its output."""


def run(*argv: str, env: Mapping[str, str] | None = None, timeout: float = 300, check: bool = True) -> str:
    """Standard output of a command. `EngineError` when it fails."""
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    if check and done.returncode:
        raise EngineError(f"{' '.join(argv)}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def missing() -> str:
    """Why containers cannot be tested here; empty when they can."""
    if not shutil.which("docker"):
        return "docker is not installed"
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if done.returncode:
        return "no Docker engine is reachable"
    if not compose_command():
        return "neither `docker compose` nor docker-compose is installed"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun does not exist"
    return ""


def compose_command() -> list[str]:
    """Compose v2 if it is installed, otherwise 1.29; empty when there is neither. COLO_COMPOSE chooses one of them."""
    if given := os.environ.get("COLO_COMPOSE"):
        return given.split()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=60, check=False)
        if not done.returncode:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


# -- the image ------------------------------------------------------------------------------------


def digest() -> str:
    """A digest of everything that the image is made of."""
    total = hashlib.sha256()
    for name in SOURCES:
        top = ROOT / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:12]


def image() -> str:
    """The image of the product. It is built as the Dockerfile says, on a base that needs no registry, and only once
    while the sources stay the same.
    """
    name = f"colo-test:{digest()}"
    if not run("docker", "images", "-q", name).strip():
        base, context = f"{ROOT}/tests/containers/base_image.py", tempfile.mkdtemp(prefix="colo-build-")
        try:
            made = run(sys.executable, base, "--wheels", f"{context}/wheels", timeout=600).split()[-1]
            builder = run(sys.executable, base, "--compiler", timeout=600).split()[-1]
            for source in SOURCES:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, f"{context}/{source}")
            arguments = [f"BASE_IMAGE={made}", f"BUILD_IMAGE={builder}", "PIP_ARGS=--no-index"]
            arguments = [word for one in arguments for word in ("--build-arg", one)]
            run(
                "docker",
                "build",
                "--label",
                f"colo.base={made}",
                "--label",
                f"colo.build={builder}",
                *arguments,
                "-t",
                name,
                context,
                timeout=900,
            )
        finally:
            shutil.rmtree(context)
    return name


# -- a project ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine describes it."""

    id: str
    name: str
    service: str
    state: str
    health: str
    pid: int
    restarts: int
    about: dict[str, Any] = field(repr=False)

    @property
    def well(self) -> bool:
        """True when it runs, and is healthy if it has a health check."""
        return self.state == "running" and self.health in ("healthy", "")


class Project:
    """Compose files with a project name of their own. `down` may be called at any time, also twice."""

    def __init__(
        self, *files: str, image: str = "", env: Mapping[str, str] | None = None, extra: Sequence[str] = ()
    ) -> None:
        which = random.SystemRandom()
        self.name = f"colo{os.getpid()}x{which.randrange(16**4):04x}"
        self.files = [str(COMPOSE / one) for one in files] + list(extra)
        a, b = which.randrange(64, 255), which.randrange(256)
        self.lan = f"10.{a}.{b}"
        self.env = {
            "COLO_IMAGE": image,
            "COLO_GUEST_IMAGE": image,
            "COLO_LAN": self.lan,
            "COLO_LAN6": f"fd{a:02x}:{b:x}:",
            "COLO_GUEST": f"{self.lan}.2",
            "COLO_GUEST6": f"fd{a:02x}:{b:x}::2",
            # Any free port of the loopback device.
            **{f"COLO_PUBLISH_{link}": "127.0.0.1:" for link in ("MIRROR0", "COMPARE1", "PEER")},
            **(env or {}),
        }
        self._command = compose_command()
        self.seconds = 0.0

    def compose(self, *argv: str, timeout: float = 300, check: bool = True) -> str:
        """A compose command on this project."""
        files = [part for one in self.files for part in ("-f", one)]
        return run(*self._command, "-p", self.name, *files, *argv, env=self.env, timeout=timeout, check=check)

    def up(self, *argv: str) -> None:
        """Start the services, in the background."""
        self.compose("up", "-d", *argv, timeout=STARTED)

    def stop(self) -> None:
        """Stop the containers, one after the other.

        When many leave their networks at the same time, dockerd 20.10 can lock itself up (libnetwork takes the lock of
        a network and that of its controller in either order), and gives nobody an answer after that.
        """
        for one in self.containers():
            with contextlib.suppress(EngineError, subprocess.TimeoutExpired):
                run("docker", "stop", "--time", "3", one.id, timeout=60)

    def down(self) -> None:
        """Stop and remove everything: first as a user would, and then what that has left."""
        self.stop()
        with contextlib.suppress(EngineError, subprocess.TimeoutExpired):
            self.compose("down", "-v", "--remove-orphans", timeout=STARTED)
        for kind, ids in self.leftovers().items():
            for one in ids:
                run("docker", kind, "rm", *(["-f"] if kind == "container" else []), one, check=False)

    def leftovers(self) -> dict[str, list[str]]:
        """Containers, networks and volumes that bear the project's name."""
        mine = f"label={LABEL}={self.name}"
        return {
            "container": run("docker", "ps", "-aq", "--filter", mine).split(),
            "network": run("docker", "network", "ls", "-q", "--filter", mine).split(),
            "volume": run("docker", "volume", "ls", "-q", "--filter", mine).split(),
        }

    def containers(self) -> list[Container]:
        """All containers of the project, as they are now."""
        ids = self.leftovers()["container"]
        found = json.loads(run("docker", "inspect", *ids, check=False) or "[]") if ids else []
        return [
            Container(
                id=one["Id"],
                name=one["Name"].lstrip("/"),
                service=one["Config"]["Labels"][SERVICE],
                state=one["State"]["Status"],
                health=one["State"].get("Health", {}).get("Status", ""),
                pid=one["State"]["Pid"],
                restarts=one["RestartCount"],
                about=one,
            )
            for one in found
        ]

    def container(self, service: str) -> Container:
        """The container of a service; the first one if there are several."""
        return next(one for one in self.containers() if one.service == service)

    def await_healthy(self, *services: str, timeout: float = STARTED) -> float:
        """Wait until all services, or these, are healthy; returns the seconds. `EngineError` names the others."""
        began = time.monotonic()
        while True:
            now = [one for one in self.containers() if not services or one.service in services]
            ill = [f"{one.service}: {one.state} {one.health}" for one in now if not one.well]
            if now and not ill:
                return time.monotonic() - began
            if time.monotonic() - began > timeout:
                raise EngineError(f"not well after {timeout:g} s: {', '.join(ill) or 'there is nothing'}")
            time.sleep(0.3)

    def exec(self, service: str, *argv: str, timeout: float = 300, check: bool = True) -> str:
        """Standard output of a command in a service's container."""
        return run("docker", "exec", self.container(service).id, *argv, timeout=timeout, check=check)

    def job(self, *argv: str, service: str = "client", timeout: float = 300) -> dict[str, Any]:
        """The result of a job of `colo_lab.programs.client`."""
        out = self.exec(service, "python3", "-m", "colo_lab.programs.client", *argv, timeout=timeout, check=False)
        return answer(out)

    def status(self, frame: str = "frame") -> dict[str, Any]:
        """The output of `colo status` on a host."""
        # Its exit status is the verdict on the pair, and 1 when the frame does not answer.
        out = self.exec(frame, "colo", "status", "--json", "--timeout", "20", check=False)
        if not out.strip():
            raise EngineError(f"colo status: {frame} does not answer")
        return dict(json.loads(out))

    def await_ready(self, frames: Sequence[str] = ("frame", "frame-s"), timeout: float = 120) -> None:
        """Wait until every process that the frames know is ready. The health checks of the engine take longer."""
        deadline = time.monotonic() + timeout
        while True:
            waiting = []
            for frame in frames:
                try:
                    known = self.status(frame)["processes"]
                except EngineError as error:
                    waiting.append(f"{frame}: {str(error)[-200:]}")
                    continue
                waiting += [
                    one["id"]
                    for one in known
                    if one["state"] != "live" or one["report_age_ms"] is None or not one["status"].get("ready", True)
                ]
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise EngineError(f"not ready after {timeout:g} s: {', '.join(waiting)}")
            time.sleep(0.2)

    def compared(self, least: int, timeout: float = 60) -> dict[str, int]:
        """The sum of the counters of all compare workers, as soon as it has at least so many compared bytes."""
        deadline = time.monotonic() + timeout
        while True:
            total: Counter[str] = Counter()
            for one in self.status()["processes"]:
                if one["role"] == "compare":
                    total.update(one["counters"])
            if total["bytes_compared"] >= least or time.monotonic() > deadline:
                return dict(total)
            time.sleep(0.3)

    def logs(self) -> str:
        """The last log lines of all services, for a test that failed."""
        return self.compose("logs", "--no-color", "--tail", "15", check=False)


def answer(out: str) -> dict[str, Any]:
    """The last line of JSON that a client program printed; when there is none, a result that says so."""
    lines = [line for line in out.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {"wrong": f"no answer: {out[-200:]!r}"}


@contextlib.contextmanager
def project(*files: str, **more: Any) -> Iterator[Project]:
    """A project that is removed at the end, whatever happens. Nothing is started yet."""
    one = Project(*files, **more)
    try:
        yield one
    except BaseException:
        with contextlib.suppress(Exception):
            sys.stderr.write(one.logs()[-6000:])
        raise
    finally:
        one.down()


if __name__ == "__main__":  # `make test` builds the image while other rings run.
    try:
        print(f"containers: {missing() or image()}")
    except (EngineError, OSError, subprocess.SubprocessError) as error:
        print(f"containers: the image could not be built ahead, the ring will try again: {error}")
