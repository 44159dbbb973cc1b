"""The operator's command at a change: real scripts, one at a time, and never in the way of the loop."""

import threading
import time

import pytest

from colo_proto.errors import ConfigError
from colo_runtime.hook import MAX_OUTPUT, Hook, parse

PATIENCE = 30.0


class Runner:
    def __init__(self, script, directory, timeout=PATIENCE):
        path = directory / "script"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)
        self.woken = threading.Event()
        self.hook = Hook([str(path)], timeout, self.woken.set)
        self.ended = []

    def until(self, count):
        end = time.monotonic() + PATIENCE
        while len(self.ended) < count:
            assert self.woken.wait(end - time.monotonic()), self.ended
            self.woken.clear()
            self.ended += self.hook.take()
        return self.ended


@pytest.fixture
def runner(tmp_path):
    made = []

    def make(script, **more):
        made.append(Runner(script, tmp_path, **more))
        return made[-1]

    yield make
    for one in made:
        one.hook.close()


def test_it_gets_the_change_and_what_it_says_is_kept(runner):
    one = runner('echo "$COLO_BEFORE to $COLO_AFTER"; echo oops >&2; exit 3\n')
    one.hook.change({"COLO_BEFORE": "standby", "COLO_AFTER": "promoted"})
    (ended,) = one.until(1)
    assert (ended.status, ended.output, ended.timed_out) == (3, "standby to promoted\noops", False)
    assert ended.variables["COLO_AFTER"] == "promoted"


def test_one_runs_at_a_time_and_the_newest_that_waits_is_not_lost(runner, tmp_path):
    gate = tmp_path / "gate"
    log = tmp_path / "log"
    one = runner(f'echo "$N begins" >> {log}; while [ ! -e {gate} ]; do sleep 0.02; done; echo "$N ends" >> {log}\n')
    one.hook.change({"N": "1"})
    end = time.monotonic() + PATIENCE
    while not log.exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    began = time.monotonic()
    for number in range(2, 100):
        one.hook.change({"N": str(number)})
    assert time.monotonic() - began < 1, "nobody waits"
    gate.touch()
    assert [ended.variables["N"] for ended in one.until(2)] == ["1", "99"]
    assert log.read_text() == "1 begins\n1 ends\n99 begins\n99 ends\n"
    assert one.hook.skipped == 97


def test_one_that_hangs_is_killed_with_what_it_started(runner, tmp_path):
    mark = tmp_path / "mark"
    one = runner(f"(sleep 2; touch {mark}) & echo started; wait\n", timeout=0.3)
    one.hook.change({})
    (ended,) = one.until(1)
    assert (ended.status, ended.timed_out, ended.output) == (-9, True, "started")
    assert ended.seconds < 2
    one.hook.change({})
    one.until(2)
    assert not mark.exists()


def test_one_that_leaves_something_in_the_background_or_closes_its_output(runner):
    one = runner('if [ "$N" = 1 ]; then sleep 60 & echo $!; else exec >&- 2>&-; sleep 0.2; fi\n')
    one.hook.change({"N": "1"})
    (ended,) = one.until(1)
    assert ended.status == 0
    assert ended.seconds < 20
    one.hook.change({"N": "2"})
    assert one.until(2)[1].status == 0
    import os
    import signal

    os.kill(int(ended.output), signal.SIGKILL)


def test_a_flood_of_output_is_bounded(runner):
    one = runner("seq 300000; echo the end\n")
    one.hook.change({})
    (ended,) = one.until(1)
    assert len(ended.output) <= MAX_OUTPUT
    assert ended.output.endswith("the end")


def test_a_program_that_is_gone(runner, tmp_path):
    one = runner("true\n")
    (tmp_path / "script").unlink()
    one.hook.change({})
    (ended,) = one.until(1)
    assert ended.status is None
    assert "No such file" in ended.output


@pytest.mark.parametrize("command", ["/nonexistent/x", "'unbalanced", "   "])
def test_mistakes(command):
    with pytest.raises(ConfigError, match="--on-change"):
        parse("--on-change", command)


def test_words():
    assert parse("--on-change", "sh -c 'a b'") == ["sh", "-c", "a b"]
