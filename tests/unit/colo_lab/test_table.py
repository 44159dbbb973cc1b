import os
import re
from collections import Counter

from rich.text import Text

from colo_lab.observed import Process, Usage
from colo_lab.table import Footer, LiveTable


def process(frames, cpu):
    counters = Counter({"link.netdev.frames_in": frames})
    one = Process("mirror", "m0", "host-p", 1, Usage(cpu), 0, complete=True, reported=True, counters=counters)
    return {"m0": one}


def test_rates_are_differences_over_time():
    now = [0.0]
    table = LiveTable("", lambda: now[0])

    def shown(*counts):
        columns = table.draw(process(*counts)).columns
        return [next(iter(columns[at].cells)).strip() for at in (3, 6)]

    assert shown(100, 1.0) == ["0", "0%"]
    now[0] = 2.0
    assert shown(300, 1.5) == ["100", "25%"]
    now[0] = 3.0
    assert shown(0, 0.0) == ["0", "0%"], "a process that began anew has no negative rate"


def test_the_host_that_leads_is_marked():
    frames = {
        name: Process(
            *("frame", name, host, 1, Usage(), 0),
            complete=True, reported=True, detail={"leadership": {"writes": name == "frame-s"}},
        )
        for name, host in (("frame-p", "host-p"), ("frame-s", "host-s"))
    }  # fmt: skip
    assert list(LiveTable("", lambda: 0.0).draw(frames).columns[1].cells) == ["primary", "secondary, leads"]


def test_the_footer_keeps_out_of_the_clients_way():
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(terminal.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        footer = Footer(terminal)
        footer.show(Text("a\nb\nc"))
        text = screen.read(4096).decode()
        assert "\x1b[1;17r" in text, "three lines of twenty are kept from scrolling"
        assert re.findall(r"\x1b\[(\d+);1H", text) == ["18", "19", "20"]
        footer.show(Text("a\nb\nd"))
        assert "r\x1b8" not in screen.read(4096).decode(), "the region stays while the size does"
        footer.close()
        assert "\x1b[r" in screen.read(4096).decode()
