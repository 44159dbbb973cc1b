"""A real etcd of one or three members on this machine, for tests of the third vote."""

import contextlib
import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="no etcd here (Debian: etcd-server)")


class Etcd:
    """See the module. Members are called 0, 1, 2; each listens on two ports of `host` that are free."""

    def __init__(self, ports, host="127.0.0.1", tls=(), prefix=()):
        """`ports`: client and peer port of each member. `tls`: further options. `prefix`: a command in front."""
        self.directory = tempfile.mkdtemp(prefix="colo-etcd-")
        self.host = host
        self.ports = ports
        self.tls = list(tls)
        self.prefix = list(prefix)
        self.scheme = "https" if tls else "http"
        self.processes = {}

    @property
    def endpoints(self):
        return "etcd://" + ",".join(f"{self.host}:{client}" for client, _ in self.ports)

    def start(self, *members):
        cluster = ",".join(f"m{at}=http://{self.host}:{peer}" for at, (_, peer) in enumerate(self.ports))
        for at in members or range(len(self.ports)):
            client, peer = self.ports[at]
            argv = [
                *self.prefix, "etcd", "--name", f"m{at}", "--data-dir", f"{self.directory}/m{at}",
                "--listen-client-urls", f"{self.scheme}://{self.host}:{client}",
                "--advertise-client-urls", f"{self.scheme}://{self.host}:{client}",
                "--listen-peer-urls", f"http://{self.host}:{peer}",
                "--initial-advertise-peer-urls", f"http://{self.host}:{peer}",
                "--initial-cluster", cluster, "--unsafe-no-fsync", *self.tls,
            ]  # fmt: skip
            with open(f"{self.directory}/m{at}.log", "ab") as log:
                self.processes[at] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def ready(self, within=30.0):
        """Wait until each member that runs answers with a leader."""
        until = time.monotonic() + within
        while not all(self._healthy(at) for at in self.processes):
            assert time.monotonic() < until, Path(f"{self.directory}/m0.log").read_text()[-2000:]
            time.sleep(0.05)
        return self

    def _healthy(self, at):
        # TLS is tried by the tests themselves; there the port must answer.
        with contextlib.suppress(OSError, ValueError):
            if self.scheme == "https":
                import socket

                socket.create_connection((self.host, self.ports[at][0]), 1).close()
                return b"ready to serve client requests" in Path(f"{self.directory}/m{at}.log").read_bytes()
            with urllib.request.urlopen(f"http://{self.host}:{self.ports[at][0]}/health", timeout=2) as answer:
                return json.load(answer)["health"] == "true"
        return False

    def kill(self, *members):
        for at in members:
            process = self.processes.pop(at)
            process.kill()
            process.wait()

    def signal(self, number, *members):
        """SIGSTOP and SIGCONT."""
        for at in members:
            self.processes[at].send_signal(number)

    def stop(self):
        for process in self.processes.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start().ready()

    def __exit__(self, *_):
        self.stop()
