"""Flows under `pass` and `shadow`: what every kind of flow can be asked, they can be asked."""

import pytest

from colo_compare.config import CompareConfig
from colo_compare.datagram import DatagramFlow
from colo_compare.errors import ErrorFlow
from colo_compare.exempt import PassedFlow, already_sent
from colo_compare.flow import Flow
from colo_compare.ledger import Ledger
from colo_compare.tcp.flow import TcpFlow
from colo_proto.messages import SetRules
from colo_proto.net.packet import dissect
from colo_proto.rules import DEFAULT
from playbook import P, Play, S, udp

ASKED = [name for name, value in vars(Flow).items() if callable(value) and not name.startswith("_")]


@pytest.mark.parametrize("kind", [TcpFlow, DatagramFlow, ErrorFlow, PassedFlow])
def test_every_kind_answers_everything(kind):
    ledger = Ledger(CompareConfig())
    flow = kind(ledger, dissect(P(1).data).key, DEFAULT, 1.0)
    assert not [name for name in ASKED if not callable(getattr(flow, name, None))]
    flow.expire(0.0, 1.0)
    flow.judge(1.0)
    flow.sweep()
    flow.let_out("test")
    flow.flush(copied=True)
    flow.flush(copied=False)
    flow.abandon("test")
    assert flow.oldest() is None
    assert not flow.lingers()
    assert flow.evidence("") == []
    assert not flow.idle_since(2.0)
    assert flow.idle_since(1e6)
    assert "tcp 10.0.0.2:80" in flow.describe()
    assert not hasattr(flow, "__dict__"), "a flow that forgets its slots takes three times the memory"


def test_the_sink_is_given_back_also_after_an_error():
    ledger = Ledger(CompareConfig())
    sink = ledger.sink
    with pytest.raises(RuntimeError), already_sent(ledger):
        ledger.sink.append(b"nowhere")
        assert ledger.shadow
        raise RuntimeError
    assert ledger.sink is sink
    assert sink == []
    assert not ledger.shadow


@pytest.mark.parametrize("action", ["pass", "shadow"])
def test_the_books_balance_under_every_rule(action):
    """`Play` looks at them after every frame."""
    play = Play()
    play.tell(SetRules(f"{action} any"))
    for n in range(50):
        play >> P(1000 + n, b"a") >> S(1000 + n, b"ab"[n % 2 : n % 2 + 1]) >> udp("P", b"x") >> udp("S", bytes([n]))
        play.at(0.3)
    assert len(play.sent) == 100
    play.tell(SetRules(""))
    assert play.core.gauges()["flows"] == 0
    assert play.core.gauges()["held_bytes"] == 0
    assert play.core.gauges()["secondary_bytes"] == 0


def test_a_watched_connection_takes_part_in_a_checkpoint():
    play = Play()
    play.tell(SetRules("shadow tcp"))
    play >> P(5000, b"abc") >> S(5000, b"abX")
    play.done(copied=True)
    play >> P(5003, b"abc") >> S(5003, b"abc")
    assert len(play.sent) == 2
    assert play.core.counters["miscompares"] == 1
