"""The head of `colo status`: the verdict in one line with its exit status, and both sides of the pair."""

import io
import re
import time

import pytest
from rich.console import Console

from colo_cli import statusview
from colo_cli.pairview import exit_status, verdict_line
from colo_cli.statusview import view
from ownership_world import World
from whole_pair import whole

FLOWS = {"reason": "flows", "level": "degraded", "text": "3 of 40 connections unprotected", "detail": "payload"}


def said(level, *causes, lan="primary"):
    return {"verdict": {"level": level, "causes": list(causes), "lan": lan}}


def line(body):
    return verdict_line(body).plain


def shown(body, width=79):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view(body))
    return out.getvalue()


@pytest.mark.parametrize(("level", "status"), [("protected", 0), ("degraded", 3), ("unprotected", 4)])
def test_the_verdict_is_the_exit_status(level, status):
    assert exit_status(said(level)) == status


@pytest.mark.parametrize("body", [{}, {"verdict": None}, {"verdict": {"level": "fine"}}, {"verdict": {"level": []}}])
def test_a_frame_without_a_verdict_does_not_say_that_its_pair_is_protected(body):
    assert exit_status(body) == 4
    assert line(body) == "this frame gives no verdict on the pair"


def test_what_is_not_protected_says_why_and_since_when():
    assert line(said("protected")) == "protected; the client LAN is at the primary"
    assert line(said("degraded", {**FLOWS, "age_ms": 59_900})) == (
        "degraded (3 of 40 connections unprotected for 59 s, payload); the client LAN is at the primary"
    )
    then = time.strftime("%H:%M", time.localtime(time.time() - 3600))
    assert re.search(
        rf"unprotected since ({then}|\d\d:\d\d), payload\)", line(said("degraded", {**FLOWS, "age_ms": 3_600_000}))
    )
    old = line(said("degraded", {**FLOWS, "age_ms": 10 * 86_400_000}))
    assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d", old)


@pytest.mark.parametrize(
    ("lan", "words"),
    [
        ("secondary", "the client LAN is at the secondary"),
        ("nobody", "nobody writes to the client LAN"),
        ("unknown", "it is not known who writes to the client LAN"),
    ],
)
def test_where_the_client_lan_is(lan, words):
    assert line(said("unprotected", lan=lan)) == f"unprotected; {words}"


def test_the_level_has_a_colour_on_a_terminal():
    out = io.StringIO()
    Console(file=out, color_system="standard", force_terminal=True).print(verdict_line(said("unprotected")))
    assert "\x1b[1;31munprotected" in out.getvalue()


def test_the_verdict_is_one_line_where_there_is_no_terminal(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(statusview, "Console", lambda: Console(file=out, width=40, color_system=None))
    statusview.show(said("degraded", {**FLOWS, "age_ms": 1000}))
    assert out.getvalue().splitlines()[0].endswith("the client LAN is at the primary")


def test_both_hosts_show_both_sides():
    pair = whole()
    pair.checkpoint("payload", 3, 40)
    pair.run(2.0)
    for side in ("primary", "secondary"):
        text = shown(pair.body(side))
        assert text.startswith("degraded (3 of 40 connections unprotected for ")
        assert re.search(r"^primary +frame-p +writes +holding for \d s +0 +enforce +5 ", text, flags=re.MULTILINE)
        assert re.search(r"^secondary +frame-s +- +standby for \d s +0 +enforce +4 ", text, flags=re.MULTILINE)
        assert re.search(r"^last checkpoint epoch 1 \d s ago, payload, tcp 10.0.0.2:80", text, flags=re.MULTILINE)
        assert re.search(r"^connections 40 open, 3 unprotected for \d s, payload$", text, flags=re.MULTILINE)
        assert re.search(r"^last failover none$", text, flags=re.MULTILINE)
    assert pair.ask("secondary", "failover").ok
    pair.until(lambda: pair.state("secondary") == "promoted")
    pair.run(1.0)
    for side in ("primary", "secondary"):
        text = shown(pair.body(side))
        assert re.search(r"^last failover to the secondary \d s ago$", text, flags=re.MULTILINE)
        assert re.search(r"^secondary +frame-s +writes +promoted ", text, flags=re.MULTILINE)


def test_where_roles_change_the_host_that_leads_is_named():
    world = World(roles="change").run(3.0)
    assert world.ask("s", "failover").ok
    world.run(1.0)
    for letter in "ps":
        text = shown(world.ask(letter, "status").body, 160)
        assert "the client LAN is at the secondary" in text
        assert re.search(r"^primary \(standby\) +frame-p +- +standby ", text, flags=re.MULTILINE)
        assert re.search(r"^secondary \(leader\) +frame-s +writes +holding ", text, flags=re.MULTILINE)
        assert re.search(r"^last failover to the secondary \d s ago$", text, flags=re.MULTILINE)
        assert re.search(r"^connections 0 open, 0 unprotected$", text, flags=re.MULTILINE)


def test_processes_that_are_lost_are_named_on_both_hosts():
    pair = whole()
    pair.kill("rew0")
    pair.run(7.0)
    for side in ("primary", "secondary"):
        assert "3, lost: rew0" in shown(pair.body(side), 120)


@pytest.mark.parametrize(
    "junk", [None, 5, "x", [], [1], {}, {"state": []}, {"age_ms": "x"}, {"level": "degraded", "causes": 3}]
)
@pytest.mark.parametrize("name", ["verdict", "leadership", "peer", "flows", "checkpoint", "gauges", "processes"])
def test_anything_can_be_shown(name, junk):
    body = {**whole_body(), name: junk}
    assert "id" in shown(body)
    assert exit_status(body) in (0, 3, 4)


@pytest.mark.parametrize("junk", [None, "x", [], -1, 1 << 62, 2.5])
def test_any_time_can_be_shown(junk):
    body = said("degraded", {**FLOWS, "age_ms": junk}) | {
        "leadership": {"state": "holding", "since_ms": junk, "takeover": {"side": "primary", "age_ms": junk}},
        "peer": {"role": "secondary", "age_ms": junk, "peer_since_ms": junk, "peer_processes_lost": junk},
        "checkpoint": {"last": {"age_ms": junk}},
    }
    assert "degraded" in shown(body)


def test_no_text_steers_the_terminal():
    body = said("degraded", {**FLOWS, "text": "\x1b[2Jx[bold]", "detail": "\r\n"}, lan="\x1b[31m")
    assert "\x1b" not in shown(body)
    assert len(verdict_line(body).plain.splitlines()) == 1


def whole_body():
    return {
        **said("protected"), "side": "primary", "id": "frame-p",
        "leadership": {"state": "holding", "writes": True, "since_ms": 1}, "peer": {"role": "secondary", "alive": True},
    }  # fmt: skip
