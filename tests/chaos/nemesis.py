"""Faults in one container at a time, caused from the host.

After `docker kill` the restart policy would not act, because Docker takes it for a request to stop. So SIGKILL is sent
to the process itself.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from containers.engine import Container, Project, run

PAUSE: Final = 5.0
"""Duration of a pause and of a cut, in seconds."""
REPLICATION: Final = "replication"


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is to happen `delay` seconds after the load has begun."""

    service: str
    fault: str
    delay: float
    seed: int


def plan(services: Sequence[str], faults: Sequence[str], rounds: int, seed: int, cut: Sequence[str]) -> list[Strike]:
    """Every fault at every service `rounds` times, in an order and with delays that follow from the seed. Only the
    services in `cut` can be cut off the replication network.
    """
    chance = random.Random(seed)
    pairs = [
        (service, fault)
        for service in services
        for fault in faults
        if fault != "cut" or service in cut
        for _ in range(rounds)
    ]
    chance.shuffle(pairs)
    return [Strike(service, fault, chance.uniform(0, 1.5), chance.randrange(2**32)) for service, fault in pairs]


def kill(_project: Project, target: Container) -> None:
    """Send SIGKILL to the first process of the container; the restart policy restarts it."""
    os.kill(target.pid, signal.SIGKILL)


def restart(project: Project, target: Container) -> None:
    """Restart the container as an operator would."""
    project.compose("restart", target.service)


def pause(_project: Project, target: Container) -> None:
    """Freeze all its processes for a while."""
    run("docker", "pause", target.id)
    try:
        time.sleep(PAUSE)
    finally:
        run("docker", "unpause", target.id)


def cut(project: Project, target: Container) -> None:
    """Disconnect it from the replication network for a while, and connect it again under the same names."""
    name = f"{project.name}_{REPLICATION}"
    there = target.about["NetworkSettings"]["Networks"][name]
    aliases = [one for one in there.get("Aliases") or [] if not target.id.startswith(one)]
    run("docker", "network", "disconnect", name, target.id)
    try:
        time.sleep(PAUSE)
    finally:
        run("docker", "network", "connect", *(f"--alias={one}" for one in aliases), name, target.id)


FAULTS: Final[dict[str, Callable[[Project, Container], None]]] = {
    "kill": kill,
    "restart": restart,
    "pause": pause,
    "cut": cut,
}


def cuttable(project: Project) -> list[str]:
    """Services on the replication network."""
    name = f"{project.name}_{REPLICATION}"
    return sorted({one.service for one in project.containers() if name in one.about["NetworkSettings"]["Networks"]})


def shown(strike: Strike) -> str:
    """The fault as text, with which it can be repeated."""
    return json.dumps({"service": strike.service, "fault": strike.fault, "seed": strike.seed})
