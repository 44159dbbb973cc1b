"""The command itself: what an operator gets wrong is one clear line that names it, and a status.

What is found before anything starts is tested in this process, with an example of each kind in a real one (`colo`).
"""

import json
import os
import socket
import subprocess
import sys
import tomllib

import pytest

import craft
from colo_cli.cli import main
from colo_proto.frame import ETH
from colo_runtime.capture import CaptureWriter
from playbook import P, S, syn, udp
from runtime_helpers import free_port
from where import PYTHONPATH

HERE = {"PYTHONPATH": PYTHONPATH}


def colo(*arguments, **environ):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("COLO_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "colo_cli", *arguments],
        env=clean | HERE | environ, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip


@pytest.fixture
def here(capsys, monkeypatch):
    """Runs a command line as `colo` does, but in this process."""
    for name in [name for name in os.environ if name.startswith("COLO_")]:
        monkeypatch.delenv(name)

    def run(*arguments, **environ):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            status = main(list(arguments))
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


def refused(done, status, *named):
    """One line, on standard error, that begins with the command; no traceback."""
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("colo")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for text in named:
        assert text in lines[0]


@pytest.fixture
def place(bench):
    return bench.directory


PORTS = ("--netdev", "pcap:///dev/null", "--next", "pcap:///dev/null")


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["mirror", "--nonsense", "1"], ["colo mirror: ", "--nonsense"]),
            (["nonsense"], ["nonsense"]),
            (["mirror", "--netdev"], ["--netdev"]),
            (["mirror", "--netdev", "lan"], ["--netdev: endpoint 'lan'", "scheme"]),
            (["mirror", "--netdev", "tap://lan?sever=on"], ["--netdev", "sever"]),
            (["compare", "--compare-timeout", "soon"], ["--compare-timeout", "whole number (ms)", "soon"]),
            (["compare", "--max-queue-size", "0"], ["--max-queue-size", "at least 1"]),
            (["compare", "--mode", "sometimes"], ["--mode", "enforce, shadow, bypass"]),
            (["redirector", "--netdev", "tap://lan"], ["--indev or --outdev"]),
            (["frame"], ["--listen: required"]),
            (["netdev", "--listen", "/x"], ["--tap: required"]),
            (["netdev", "--listen", "/x", "--tap", "a,colour=red"], ["--tap a,colour=red", "colour"]),
            (["health"], ["--http: required"]),
            (["lab", "--wiring", "loose", "true"], ["--wiring", "loose", "faithful"]),
            (["lab", "--mode", "lenient", "true"], ["--mode", "lenient", "enforce"]),
            (["lab", "--guest-wait", "-1", "true"], ["--guest-wait", "-1"]),
            (["lab", "--start-timeout", "-1", "true"], ["--start-timeout", "-1"]),
            (["lab", "--failover", "-1", "true"], ["--failover", "-1"]),
            (["mirror", "--log-level", "loud", *PORTS], ["--log-level", "debug, info"]),
            (["mirror", "--http", "9000", *PORTS, "--outdev", "pcap:///dev/null"], ["--http", "HOST:PORT"]),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
    )
    def test_wrong_usage(self, here, arguments, named):
        refused(here(*arguments), 2, *named)

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["compare", "--compare-timeout", "soon"], ["colo compare: ", "--compare-timeout", "soon"]),
            (["mirror"], ["--netdev: required"]),
        ],
        ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
    )
    def test_wrong_usage_of_a_real_process(self, arguments, named):
        refused(colo(*arguments), 2, *named)

    def test_nothing_at_all_shows_the_commands(self):
        done = colo()
        assert done.returncode == 2
        assert "netdev" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("arguments", [["--help"], ["compare", "-h"], ["--version"], ["lab", "--help"]])
    def test_help(self, arguments):
        done = colo(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
        assert "\\" not in done.stdout, "marks for the formatter are not shown"

    @pytest.mark.parametrize("name", ["--primary_in", "--primary-in"])
    def test_dash_and_underscore_are_the_same(self, name):
        # The next missing port is named, so this one was understood.
        refused(colo("compare", name, "pcap:///dev/null"), 2, "--secondary-in: required")

    def test_help_shows_defaults_and_units(self, here):
        text = " ".join(here("compare", "--help").stdout.split())
        assert "[default 3000 ms]" in text
        assert "[enforce|shadow|bypass; default enforce]" in text

    def test_a_reader_that_leaves_is_no_error(self):
        done = subprocess.run(
            f"{sys.executable} -P -m colo_cli compare --help | head -1",
            shell=True, env=os.environ | HERE, capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert done.stdout.startswith("Usage:")
        assert done.stderr == ""


class TestConfiguration:
    def write(self, place, text):
        path = place / "colo.toml"
        path.write_text(text)
        return str(path)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("[mirror]\noutdef = 'ipc:///x'\n", ["[mirror]", "'outdef'", "did you mean 'outdev'"]),
            ("[defaults]\nnonsense = 1\n", ["[defaults]", "'nonsense'"]),
            ("[mirror\n", ["line 1"]),
            ("[mirror]\nqueue_bytes = 'many'\n", ["[mirror] queue_bytes", "whole number (bytes)"]),
        ],
    )
    def test_a_wrong_file(self, here, place, text, named):
        path = self.write(place, text)
        refused(here("mirror", "--config", path, *PORTS), 2, path, *named)

    def test_a_missing_file(self, here):
        refused(here("mirror", "--config", "/nowhere/colo.toml"), 2, "--config /nowhere/colo.toml", "No such file")

    def test_the_environment(self, here):
        refused(here("mirror", COLO_MIRROR_OUTDEF="x"), 2, "COLO_MIRROR_OUTDEF")
        refused(here("mirror", COLO_LOG_LEVEL="loud"), 2, "COLO_LOG_LEVEL")

    def test_check_prints_what_it_comes_to_in_a_form_that_can_be_given_again(self, here, place):
        path = self.write(
            place, '[defaults]\nlog_level = "debug"\n[mirror.m0]\noutdev = "ipc:///run/m"\n[compare.c0]\n'
        )
        done = here("check", "--config", path)
        assert (done.returncode, done.stderr) == (0, "")
        resolved = tomllib.loads(done.stdout)
        assert resolved["mirror"]["m0"]["outdev"] == "ipc:///run/m"
        assert resolved["mirror"]["m0"]["log_level"] == "debug"
        assert resolved["compare"]["c0"]["compare_timeout"] == 3000
        again = here("check", "--config", self.write(place, done.stdout))
        assert again.stdout == done.stdout
        assert json.loads(here("check", "--json", "--config", path).stdout) == json.loads(
            here("check", "--json", "--config", self.write(place, done.stdout)).stdout
        )

    def test_check_lists_everything_that_is_wrong(self, here, place):
        path = self.write(
            place,
            "[defaults]\nx = 1\n[mirrow]\n[mirror.m0]\nring_bytes = 1\n[compare.c0]\nmode = 'no'\n[rewriter]\ny = 2\n",
        )
        done = here("check", "--config", path)
        assert done.returncode == 2
        lines = done.stderr.splitlines()
        assert all(line.startswith(f"colo check: {path}") for line in lines)
        for text in ("'x'", "'mirrow'; did you mean 'mirror'", "ring_bytes: at least", "mode: one of", "'y'"):
            assert sum(text in line for line in lines) == 1, done.stderr

    def test_the_environment_wins_in_check_as_well(self, here, place):
        path = self.write(place, "[compare.c0]\nmax_flows = 9\n")
        done = here("check", "--json", "--config", path, COLO_COMPARE_MAX_FLOWS="10")
        assert json.loads(done.stdout)["compare"]["c0"]["max_flows"] == 10

    def test_check_in_a_real_process(self, place):
        path = self.write(place, "[compare.c0]\nmax_flows = 9\n")
        done = colo("check", "--json", "--config", path, COLO_COMPARE_MAX_FLOWS="10")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["compare"]["c0"]["max_flows"] == 10
        refused(colo("check", "--config", str(place / "none.toml")), 2, "No such file")


class TestHereAndNow:
    """What is right but cannot be had: status 1, or 2 where it will never be."""

    def mirror(self, *more):
        return colo("mirror", "--id", "m0", *PORTS, "--drain-timeout", "0", *more)

    def test_a_tcp_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            where = f"tcp://127.0.0.1:{port}"
            refused(self.mirror("--outdev", where + "?server=on"), 1, "--outdev", where, "Address already in use")
            where = f"chardev+tcp://127.0.0.1:{port}"
            refused(self.mirror("--outdev", where + "?server=on"), 1, "--outdev", where, "Address already in use")
            done = self.mirror("--outdev", "pcap:///dev/null", "--http", f"127.0.0.1:{port}")
            refused(done, 1, f"--http 127.0.0.1:{port}", "Address already in use")

    def test_a_socket_that_somebody_listens_on(self, place):
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(place / "s"))
            live.listen()
            done = self.mirror("--outdev", f"chardev+unix://{place}/s?server=on")
            refused(done, 1, "--outdev", f"somebody listens on {place}/s")

    def test_a_file_in_the_way(self, place):
        (place / "file").write_text("precious")
        for endpoint in (f"ipc://{place}/file?server=on", f"chardev+unix://{place}/file?server=on"):
            refused(self.mirror("--outdev", endpoint), 2, "--outdev", f"{place}/file exists and is not a socket")
        assert (place / "file").read_text() == "precious"

    def test_a_directory_that_is_not_there(self, place):
        refused(self.mirror("--outdev", f"ipc://{place}/no/s?server=on"), 2, "--outdev", f"no directory {place}/no")

    def test_a_capture_that_is_none(self, place):
        (place / "x.pcap").write_text("not a capture at all")
        done = colo("redirector", "--indev", f"pcap://{place}/x.pcap", "--outdev", "pcap:///dev/null")
        refused(done, 2, "--indev", f"{place}/x.pcap", "neither pcap nor pcapng")

    def test_an_address_that_is_not_ours(self):
        refused(
            self.mirror("--insecure", "--outdev", "tcp://192.0.2.1:9003?server=on"), 1, "--outdev", "192.0.2.1:9003"
        )

    def test_status_without_a_frame(self, place):
        where = f"ipc://{place}/control.sock"
        refused(colo("status", "--frame", where, "--timeout", "0.2"), 1, where, "no answer")
        refused(colo("status", "--frame", "tap://x"), 2, "tap://x")

    def test_health_without_a_process(self):
        where = f"127.0.0.1:{free_port()}"
        refused(colo("health", "--http", where), 1, where, "refused")

    def test_two_captures_from_end_to_end_end_well(self, place):
        done = colo("redirector", "--indev", "pcap:///dev/null", "--outdev", f"pcap://{place}/o.pcap")
        # /dev/null is no capture; an empty one is.
        refused(done, 2, "--indev")
        done = colo("redirector", "--indev", f"pcap://{place}/o.pcap", "--outdev", f"pcap://{place}/p.pcap")
        assert done.returncode == 0
        assert (place / "p.pcap").read_bytes() == (place / "o.pcap").read_bytes()


def ping(side, seq):
    return type(udp(side, b""))(side, craft.icmp_echo("10.0.0.2", "10.0.0.9", ident=1, seq=seq, reply=True))


def refusal(side, asked):
    about = craft.udp("10.0.0.9", "10.0.0.2", 5000, 9, asked)
    return type(udp(side, b""))(side, craft.icmp_error("10.0.0.2", "10.0.0.9", about))


TALK = [
    syn("P", 999),
    syn("S", 7777),
    P(1000, b"hello"),
    S(1000, b"hello"),
    udp("P", b"a"),
    udp("S", b"a"),
    ping("P", 1),
]
TALK += [ping("S", 1)]


class TestOffline:
    """Two captures compared: the exit status says whether they differ, as cmp's does, and what is wrong with them."""

    def compare(self, place, *frames, **more):
        for side, name in (("P", "p"), ("S", "s")):
            with open(f"{place}/{name}.pcap", "wb") as file:
                writer = CaptureWriter(file)
                for one in frames:
                    if one.side == side:
                        writer.write(one.data[ETH:], 1.0)
        return self.run(place, **more)

    def run(self, place, *options, out="out.pcap", mode="enforce"):
        outdev = out if out.startswith("/") else f"{place}/{out}"
        ends = ["--primary-in", f"pcap://{place}/p.pcap", "--secondary-in", f"pcap://{place}/s.pcap"]
        return colo("compare", *ends, "--outdev", f"pcap://{outdev}", "--mode", mode, *options)

    @pytest.mark.slow
    @pytest.mark.parametrize("mode", ["enforce", "shadow"])
    @pytest.mark.parametrize(
        ("more", "status"),
        [
            ([], 0),
            ([P(1005, b"x"), S(1005, b"y")], 3),
            ([udp("P", b"x"), udp("S", b"y")], 3),
            ([ping("P", 2), ping("S", 3)], 3),
            ([P(1005, b"x")], 3),
            ([S(1005, b"x")], 3),
            ([udp("P", b"x")], 3),
            ([udp("S", b"x")], 3),
            ([refusal("P", b"1"), refusal("S", b"2")], 0),
        ],
        ids=lambda value: "+".join(one.side for one in value) if isinstance(value, list) else None,
    )
    def test_whether_they_differ_is_the_exit_status(self, place, more, status, mode):
        done = self.compare(place, *TALK, *more, mode=mode)
        assert done.returncode == status, done.stderr
        (line,) = [json.loads(one) for one in done.stderr.splitlines() if "captures.compared" in one]
        assert bool(line["differences"]) == bool(status)

    def test_a_fragment_that_the_other_one_lacks(self, place):
        first = craft.fragments(udp("P", bytes(3000)).data, 1500)[0]
        assert self.compare(place, *TALK, type(TALK[0])("P", first)).returncode == 3
        both = [type(TALK[0])(side, first) for side in "PS"]
        assert self.compare(place, *TALK, *both).returncode == 0

    def test_empty_ones_are_equal(self, place):
        assert self.compare(place).returncode == 0

    def test_bypass_compares_nothing_and_finds_nothing(self, place):
        assert self.compare(place, P(1, b"x"), S(1, b"y"), mode="bypass").returncode == 0

    def test_what_cannot_be_read_to_its_end_is_no_result(self, place):
        self.compare(place, *TALK)
        with open(f"{place}/s.pcap", "r+b") as file:
            file.truncate(os.path.getsize(f"{place}/s.pcap") - 3)
        assert self.run(place).returncode == 1

    def test_nor_what_cannot_be_written(self, place):
        assert self.compare(place, *TALK, out="/dev/full").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--timeout", "nan"), ("failover", "--timeout", "inf"), ("health", "--timeout", "nan"),
        ("mode", "--timeout", "nan"), ("lab", "--failover", "nan", "true"), ("lab", "--timeout", "inf", "true"),
        ("lab", "--kill", "m0@nan", "true"), ("lab", "--scale", "2@inf", "true"), ("lab", "--loss", "nan", "true"),
        ("lab", "--scale", "9" * 4000 + "@1", "true"), ("lab", "--start-timeout", "nan", "true"),
        ("compare", "--max-flows", "9" * 26), ("compare", "--max-flows", "9" * 5000),
        ("rewriter", "--hold-ms", "1e999"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(arguments):
    done = colo(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 300
