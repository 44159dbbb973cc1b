"""Questions and orders of people, and the modes and rules that they set."""

import pytest

from colo_frame.frame import Frame
from colo_proto.codec import decode, encode
from colo_proto.core import Tell
from colo_proto.messages import Answer, Query, SetMode, SetRules, Welcome

from .frames import PRIMARY, SECONDARY, answer, hello, primary, report, request, told


def test_a_mode_reaches_every_compare_and_later_ones():
    f = primary()
    f.hear("m0", hello("mirror", "m0"), 0.0)
    outputs = f.hear("cli", Query("mode", {"mode": "shadow"}), 1.0)
    assert [(o.to, o.message.mode) for o in outputs if isinstance(o, Tell) and isinstance(o.message, SetMode)] == [
        ("comp0", "shadow")
    ]
    assert told(outputs, Answer, "cli") == [Answer(ok=True, body={"mode": "shadow"})]
    assert told(f.hear("comp1", hello(name="comp1"), 2.0), Welcome, "comp1")[0].mode == "shadow"
    assert answer(f, Query("mode")).body == {"mode": "shadow"}


@pytest.mark.parametrize("mode", ["off", 3, ["enforce"]])
def test_a_mode_that_does_not_exist_is_refused(mode):
    f = primary()
    refused = answer(f, Query("mode", {"mode": mode}))
    assert not refused.ok
    assert "enforce, shadow, bypass" in refused.error
    assert f.side.modes.mode == "enforce"


def test_an_unknown_query_is_refused():
    refused = answer(primary(), Query("x" * 1000))
    assert not refused.ok
    assert "known: status, checkpoint, mode" in refused.error
    assert len(refused.error) < 120


def test_status_has_everything_and_fits_a_message():
    f = primary()
    f.hear("comp0", report(counters={"released": 4}, gauges={"held": 2}, status={"mode": "enforce"}), 1.0)
    f.hear("comp0", request(), 1.5)
    reply = answer(f, Query("status"), 2.0)
    assert decode(encode(reply)) == reply
    body = reply.body
    assert (body["epoch"], body["mode"], body["side"], body["incarnation"]) == (1, "enforce", "primary", 1)
    assert body["table"] == {"version": 1, "workers": {"comp0": 1024}, "unsettled": [], "leaving": []}
    assert body["peer"] == {"alive": False, "state": "never seen"}
    (process,) = body["processes"]
    assert process["counters"] == {"released": 4}
    assert process["report_age_ms"] == 1000
    assert process["age_ms"] == 500
    assert body["checkpoint"]["wanted"][0]["detail"] == {"primary": "41"}


class TestRules:
    TEXT = "pass tcp guest-port 3389\n"

    def ask(self, f, **args):
        outputs = f.hear("cli", Query("rules", args), 1.0)
        (answered,) = told(outputs, Answer, "cli")
        return answered, outputs

    def test_set_by_a_question_they_go_to_every_compare(self):
        f = primary()
        f.hear("comp1", hello(name="comp1"), 0.5)
        answered, outputs = self.ask(f, rules=self.TEXT)
        assert answered.ok
        assert told(outputs, SetRules, "comp0") == told(outputs, SetRules, "comp1") == [SetRules(self.TEXT)]
        assert self.ask(f)[0].body == {"rules": self.TEXT}
        assert f.status(1.0)["rules"] == ["pass tcp guest-port 3389"]

    def test_a_compare_that_joins_later_gets_them_behind_its_welcome(self):
        f = primary()
        self.ask(f, rules=self.TEXT)
        outputs = f.hear("comp9", hello(name="comp9"), 2.0)
        kinds = [type(o.message) for o in outputs if isinstance(o, Tell) and o.to == "comp9"]
        assert kinds[:2] == [Welcome, SetRules]
        assert not told(f.hear("m0", hello("mirror", "m0"), 2.0), SetRules)

    def test_nothing_is_said_where_nothing_was_set(self):
        f = Frame(PRIMARY, 1, 0.0)
        assert not told(f.hear("comp0", hello(), 0.0), SetRules)
        assert self.ask(f)[0].body == {"rules": None}

    def test_wrong_ones_are_refused_with_the_line(self):
        f = primary()
        answered, outputs = self.ask(f, rules="pass tcp\npass tpc")
        assert not answered.ok
        assert "line 2" in answered.error
        assert not told(outputs, SetRules)

    def test_they_are_the_primarys(self):
        f = Frame(SECONDARY, 1, 0.0)
        assert not self.ask(f, rules=self.TEXT)[0].ok

    def test_a_restarted_frame_learns_them_from_a_compare(self):
        f = primary()
        f.hear("comp1", hello(name="comp1"), 0.0)
        outputs = f.hear("comp0", SetRules(self.TEXT), 1.0)
        assert told(outputs, SetRules, "comp1") == [SetRules(self.TEXT)]
        f.hear("comp1", SetRules("pass any"), 1.0)
        assert f.side.modes.rules == SetRules(self.TEXT), "the first to tell is believed"

    def test_rules_of_its_own_file_come_before_what_it_hears(self):
        f = primary()
        assert told(f.load_rules(self.TEXT, "my.rules"), SetRules, "comp0") == [SetRules(self.TEXT)]
        f.hear("comp0", SetRules("pass any"), 1.0)
        assert f.side.modes.rules == SetRules(self.TEXT)

    def test_strangers_set_nothing(self):
        f = primary()
        f.hear("nobody", SetRules("pass any"), 1.0)
        assert f.side.modes.rules is None

    def test_the_message_crosses_the_wire(self):
        assert decode(encode(SetRules(self.TEXT))) == SetRules(self.TEXT)
