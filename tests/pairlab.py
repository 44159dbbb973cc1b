"""A lab to which tests do what `colo lab` does not: they cut the link, bring a host back, and order a COLO frame."""

import signal
import subprocess
import sys

from colo_lab import lab
from colo_lab.children import entering
from colo_lab.launch import client_environment, control
from colo_lab.supervisor import LabError
from colo_netdev import netns
from colo_proto.messages import Query
from colo_runtime.client import ask


class Lab(lab.Lab):
    """See the module."""

    def popen(self, namespace, argv, **options):
        """Another process in a namespace, with a client's environment. It ends with the lab."""
        entered = entering(self.namespaces.fds[namespace])
        return subprocess.Popen(argv, env=client_environment(), preexec_fn=entered, **options)  # noqa: PLW1509

    def kill(self, name, number=signal.SIGKILL):
        """Send a signal to a process by its id; `guest-p` and `guest-s` are the guests."""
        self.supervisor.children[name].signal(number)

    def end(self, name):
        """Let a process die as by `docker kill`: nothing starts it again."""
        self.supervisor.end(self.supervisor.children[name], signal.SIGKILL)

    def begin(self, name):
        """Start a process again that has ended."""
        child = self.supervisor.children[name]
        child.abandoned = False
        self.supervisor.start(child)
        self.supervisor.on_change()

    def revive(self, name):
        """Start a host that died again, and wait for its guest. It is ready when its COLO frame says so."""
        self.repair(name)
        assert self.supervisor.until(lambda: not self.hosts.attend(), self.config.start_timeout), "no guest's tap"

    def cut(self, *, cut=True):
        """Pull (or plug in) the cable between the hosts."""
        with netns.inside(self.namespaces.fds["host-p"]):
            subprocess.run(["ip", "link", "set", "repl", "down" if cut else "up"], check=True)

    def order(self, what, side, **args):
        """Send a COLO frame an order (`failover`, `resync`, …). Returns its answer; `LabError` when it refuses."""
        answer = ask(control(self.directory, side), Query(what, args))
        if not answer.ok:
            raise LabError(f"{what}: {answer.error}")
        return answer.body

    def colo(self, command, side, *more):
        """Run a command for an operator of a host. Returns its exit status, and what it printed."""
        argv = [sys.executable, "-P", "-m", "colo_cli", command, "--frame", control(self.directory, side), *more]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def frame(self, side):
        """The status of a COLO frame now."""
        return self.order("status", side)
