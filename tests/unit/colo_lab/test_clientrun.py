"""One run of a client: who ends it, when, and what the exit status says of it. The client is a stand-in."""

import signal

import pytest

from colo_lab.clientrun import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_TIMEOUT, SHORT_PAUSE, ClientRun, cannot_run
from colo_lab.supervisor import GRACE


class Client:
    def __init__(self, status=0):
        self.status = status
        self.got = []

    def signal(self, number):
        self.got.append(number)


def run(client, plans=(), timeout=None, interrupted=lambda: 0):
    return ClientRun(client, 100.0, list(plans), timeout, interrupted)


def test_the_time_is_over():
    client = Client(-signal.SIGTERM)
    one = run(client, timeout=5.0)
    one.look(104.9)
    assert client.got == []
    for now in (105.0, 105.1, 105.0 + GRACE):
        one.look(now)
    assert client.got == [signal.SIGTERM, signal.SIGKILL]
    assert one.exit_status() == EXIT_TIMEOUT


def test_somebody_wants_it_to_end():
    numbers = [0]
    client = Client(-signal.SIGKILL)
    one = run(client, interrupted=lambda: numbers[0])
    one.look(101.0)
    numbers[0] = signal.SIGHUP
    for now in (102.0, 103.0, 102.0 + 2 * GRACE):
        one.look(now)
    assert client.got == [signal.SIGHUP, signal.SIGKILL]
    assert one.exit_status() == 128 + signal.SIGHUP, "it was deaf to the signal that it got first"


@pytest.mark.parametrize(("status", "shown"), [(0, 0), (3, 3), (-signal.SIGSEGV, 128 + signal.SIGSEGV)])
def test_else_the_exit_status_is_the_clients(status, shown):
    assert run(Client(status), timeout=9.0).exit_status() == shown


def test_plans_are_carried_out_when_they_are_due():
    done = []
    one = run(Client(), [(101.0, lambda: done.append("a")), (102.0, lambda: done.append("b"))])
    one.look(100.9)
    assert done == []
    one.look(102.5)
    assert done == ["a", "b"]


def test_it_is_looked_at_more_often_where_something_must_happen_in_time():
    assert run(Client()).pause(0.25) == 0.25
    assert run(Client(), timeout=5.0).pause(0.25) == SHORT_PAUSE
    one = run(Client(), interrupted=lambda: signal.SIGTERM)
    one.look(101.0)
    assert one.pause(0.25) == SHORT_PAUSE
    assert run(Client(), [(0.0, print)]).pause(0.25) == 0.0, "a plan is overdue"


def test_a_command_that_cannot_be_run():
    assert cannot_run(FileNotFoundError()) == EXIT_NOT_FOUND
    assert cannot_run(PermissionError()) == EXIT_NOT_EXECUTABLE
