"""`colo status` as a table: whatever a frame says, from whichever version."""

import io

import pytest
from rich.console import Console

from colo_cli.statusview import view


def shown(body, width=160):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view(body))
    return out.getvalue()


PROCESS = {
    "id": "m0", "role": "mirror", "state": "live",
    "counters": {"link.netdev.frames_in": 7, "link.outdev.frames_out": 5, "link.outdev.dropped": 2, "frames": 9},
    "gauges": {"held": 3}, "status": {"ready": False, "waiting_for": ["tap lan", "the frame"]},
}  # fmt: skip


def test_a_process_is_a_row():
    lines = shown({"mode": "enforce", "epoch": 4, "processes": [PROCESS]}).splitlines()
    assert lines[1].split() == ["mode", "enforce", "epoch", "4"]
    assert lines[2].split() == ["id", "role", "state", "ready", "in", "out", "dropped", "held", "waiting", "for"]
    assert lines[3].split() == ["m0", "mirror", "live", "no", "7", "5", "2", "3", "tap", "lan;", "the", "frame"]


def test_rows_are_sorted_by_id():
    rows = [{"id": name} for name in ("rew0", "comp0", "m0")]
    text = shown({"processes": rows})
    assert text.index("comp0") < text.index("m0") < text.index("rew0")


@pytest.mark.parametrize(
    "body",
    [
        {}, {"processes": None}, {"processes": {}}, {"processes": {"a": PROCESS}}, {"processes": [None, 5, "x"]},
        {"processes": [{}]}, {"processes": [{"counters": None, "gauges": None, "status": None}]},
        {"processes": [{"status": {"waiting_for": None, "ready": "maybe"}}]},
        {"processes": [{"status": {"waiting_for": 5, "ready": [1]}, "counters": [1], "gauges": "x"}]},
        {"processes": [{"status": [1], "counters": {"link.x.frames_in": "many"}}]},
        {"processes": [PROCESS | {"id": "[/x]", "role": "[/y]", "state": "[/]"}]},
        {"processes": [PROCESS | {"status": {"waiting_for": ["[/nothing]"]}}]},
        {"deep": {"er": [1]}, "processes": [PROCESS | {"id": "[red]not markup[/red]"}]},
    ],
)  # fmt: skip
def test_anything_can_be_shown(body):
    assert "id" in shown(body)


def test_a_guests_bytes_are_no_markup():
    assert "[bold]x[/bold]" in shown({"mode": "[bold]x[/bold]", "processes": [PROCESS]})


SEEN = {
    "reason": "payload", "flow": "tcp 10.0.0.2:80 > 10.0.0.9:5000", "offset": 9, "primary": "41424a",
    "secondary": "414258", "context": 2, "secondary_context": 2, "rule": "compare tcp",
    "evidence": "ev/comp0-0000.pcapng",
}  # fmt: skip


def test_differences_stand_under_the_table():
    text = shown({"processes": [{"id": "comp0", "role": "compare", "status": {"last": [SEEN]}}]}, width=300)
    line = text.splitlines()[-1]
    assert line.startswith(
        "comp0: payload, tcp 10.0.0.2:80 > 10.0.0.9:5000, at 9; primary 4142[4a]; secondary 4142[58]"
    )
    assert line.rstrip().endswith("rule compare tcp; evidence ev/comp0-0000.pcapng")


@pytest.mark.parametrize("last", [None, 5, [None], [{}], [{"primary": "41", "context": "x"}], [SEEN] * 100])
def test_whatever_differences_are_said_to_be(last):
    assert "id" in shown({"processes": [{"status": {"last": last}}]})


CAUSE = {
    "cause": "udp port 53", "checkpoints": 9, "delay_ms": 10000, "wait_ms": 7000, "reason": "datagram",
    "flow": "udp 10.0.0.2:53 > 10.0.0.9:6000",
}  # fmt: skip


def test_who_waits_for_its_next_checkpoint_is_named():
    body = {"checkpoint": {"causes": [CAUSE, {**CAUSE, "cause": "tcp port 80", "wait_ms": 0}]}, "processes": [PROCESS]}
    text = shown(body, width=300)
    assert "udp port 53: 9 checkpoints, the next one in 7000 ms (last: datagram, udp 10.0.0.2:53 > 10.0.0.9" in text
    assert "tcp port 80" not in text, "it does not wait"


@pytest.mark.parametrize("causes", [None, 5, [None], [{}], [{"wait_ms": "x"}], [CAUSE] * 100])
def test_whatever_causes_are_said_to_be(causes):
    assert "m0" in shown({"checkpoint": {"causes": causes}, "processes": [PROCESS]})
    assert "m0" in shown({"checkpoint": causes, "processes": [PROCESS]})


def test_the_worker_table_is_a_line():
    shares = {"version": 4, "workers": {"comp1": 275, "comp0": 749}, "unsettled": ["comp1"], "leaving": []}
    lines = shown({"mode": "enforce", "table": shares, "processes": [PROCESS]}).splitlines()
    assert lines[2].split() == ["table", "4", "comp0", "749", "comp1", "275", "unsettled:", "comp1"]


@pytest.mark.parametrize("table", [None, 5, {}, {"version": 0}, {"version": 1, "workers": [], "leaving": 3}])
def test_any_table_can_be_shown(table):
    assert "m0" in shown({"table": table, "processes": [PROCESS]})


def test_what_a_process_calls_itself_does_not_steer_the_terminal():
    text = shown({"processes": [PROCESS | {"id": "\x1b[2Jm0\x07", "role": "\r\nroot", "state": "\u202elive"}]})
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert len(text.splitlines()) == 4
