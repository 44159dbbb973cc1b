"""COLO frames that are fed by hand: messages as processes send them, and helpers that look into the answers."""

from colo_frame.config import FrameConfig
from colo_frame.drivers import Step, Verdict
from colo_frame.frame import Frame
from colo_proto.core import Log, Tell
from colo_proto.messages import Answer, CheckpointWanted, Hello, Reason, Report

PRIMARY = FrameConfig(id="frame-p", side="primary", peer="tcp://192.0.2.2:9005", workers="comp0")
SECONDARY = FrameConfig(id="frame-s", side="secondary", peer="tcp://192.0.2.1:9005")


def hello(role="compare", name="comp0", incarnation=1):
    return Hello(role, name, incarnation, pid=42)


def report(role="compare", name="comp0", **more):
    return Report(role, name, 1, more.pop("counters", {}), more.pop("gauges", {}), **more)


def request(reason=Reason.PAYLOAD, epoch=0, source="comp0"):
    return CheckpointWanted(reason, "tcp 10.0.0.2:80 > 10.0.0.9:5000", 17, {"primary": "41"}, epoch, source)


def told(outputs, kind, to=None):
    return [o.message for o in outputs if isinstance(o, Tell) and isinstance(o.message, kind) and to in (None, o.to)]


def events(outputs):
    return [o.event for o in outputs if isinstance(o, Log)]


def answer(f, query, now=0.0):
    (one,) = told(f.hear("cli", query, now), Answer, "cli")
    return one


def primary(now=0.0, **more):
    f = Frame(FrameConfig(**{"id": "frame-p", "peer": "tcp://192.0.2.2:9005", "workers": "comp0", **more}), 1, now)
    f.hear("comp0", hello(), now)
    return f


def idle(f, until):
    """Let time pass as it does in a process that runs. Returns what the timers bring."""
    outputs = []
    while (due := f.deadline()) < until:
        outputs += f.on_timer(due)
    return outputs + f.on_timer(until)


class Copying:
    """A driver that copies state at once."""

    name = "copying"
    copies_state = True

    def start(self, epoch, now):
        return Step([], Verdict(ok=True, state_copied=True))

    def hear(self, message, now):
        return Step([])

    def deadline(self):
        return None

    def on_timer(self, now):
        return Step([])


def linked(name):
    return report(name=name, gauges={"linked": 1})
