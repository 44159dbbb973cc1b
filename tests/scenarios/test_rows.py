"""Every row of the behaviour list is covered, by name; and a scenario that is wrong says where and how."""

import re
from pathlib import Path

import pytest

from packets import FORMS, Packet, change, parse, show, tokens
from rewriting import Play
from scenario import ComparePlayer, MismatchError, read, read_text

HERE = Path(__file__).parent
TESTS = HERE.parent
_FUNCTION = re.compile(r"def test_((?:(?:[tufr]|rb)\d+_)+)")


def rows():
    lines = (HERE / "rows.txt").read_text().splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def covered():
    found = set()
    for path in HERE.glob("*/*.txt"):
        for scenario in read(path):
            found |= set(scenario.rows)
    for path in TESTS.glob("**/test_*.py"):
        for names in _FUNCTION.findall(path.read_text()):
            found |= {name.upper() for name in names.split("_") if name}
    return found


def test_every_row_is_covered():
    assert set(rows()) - covered() == set()


def test_no_heading_names_a_row_that_does_not_exist():
    assert covered() - set(rows()) == set()


def test_headings_are_unique():
    for folder in ("compare", "rewriter"):
        names = [scenario.name for path in HERE.glob(f"{folder}/*.txt") for scenario in read(path)]
        assert len(names) == len(set(names))


COMPARE = """\
== a title
pri a: PA 1000 500 "ABC"
sec a
out a
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("out a", 'out a "ABX"', ["x:4: a title [v4]", 'out a "ABX"', "expected: tcp", '"ABX"', "got: tcp", '"ABC"']),
        ("out a", "", ["x:3: a title", "expected: nothing", "got: out tcp 10.0.0.2:80>10.0.0.9:5000"]),
        ("out a", "out a\nout a", ["x:5: a title", "expected: tcp", "got: nothing"]),
        ("sec a", 'sec a "ABD"', ["x:4", "expected: tcp", "got: nothing"]),
        ("sec a\nout a", 'sec a "ABD"', ["x:3", "expected: nothing", "got: want payload offset 2"]),
        (
            "sec a\nout a",
            'sec a "ABD"\nwant payload offset 1',
            ["x:4", "want payload offset 1", "want payload offset 2"],
        ),
        ("out a", "out a win 400", ["x:4", "win 400", "win 500"]),
        ("out a", "out a ttl 9", ["expected", "(byte 32", "got"]),
        ("out a", "out a\ncount held 1", ["x:5", "held 1", "held 0"]),
        ("sec a", "sec b", ["x:3", "'b' is no word of a packet"]),
        ("sec a", "secondary a", ["x:3", "a step that is known", "secondary"]),
    ],
)
def test_a_wrong_expectation_fails_with_line_expected_and_got(old, new, words):
    (scenario,) = read_text(COMPARE.replace(old, new, 1), "x")
    with pytest.raises(MismatchError) as failure:
        ComparePlayer().play(scenario)
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("client S 100\n guest SA 1500 101\n client A 101 1001 -> ack 1502", ["script:3", "ack 1502", "ack 1501"]),
        ("client S 100\n client A 101 1001", ["script:2", "expected: tcp", "got: nothing"]),
        ("client S 100 -> held", ["script:1", "expected: nothing", "got: out client tcp"]),
        ("client S 100\n out guest S 100", ["script:2", "expected: tcp", "got: nothing"]),
    ],
)
def test_the_same_for_the_rewriter(script, words):
    with pytest.raises(MismatchError) as failure:
        Play().run(script)
    for word in words:
        assert word in str(failure.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "text",
    [
        'tcp PA seq 1000 ack 500 win 500 ts 5:7 "ABCDEFGHIJ"',
        "tcp A seq 101 ack 1001 win 9 sack 2000-3000,4000-5000",
        "tcp SA seq 999 ack 500 win 500 mss 1460 sackok ws 7",
        'udp "answer"',
    ],
)
def test_what_is_shown_is_what_was_parsed(text, form):
    shown = show(parse(tokens(text)).frame(form))
    proto, _, rest = text.partition(" ")
    for word in tokens(rest):
        assert word in shown, shown
    assert shown.startswith(proto)
    assert "wrong checksum" not in shown


def test_short_and_long_are_the_same():
    long = parse(tokens('tcp 10.0.0.2:80>10.0.0.9:5000 PA seq 1000 ack 500 "A B # C"  # comment'))
    assert long == parse(tokens('PA 1000 500 "A B # C"'))
    assert long.payload == b"A B # C"
    assert parse(tokens("10.0.0.9:5000>10.0.0.2:80 S 1"), "c") == Packet("c", 2, 1)
    assert change(long, ["+4"]).body() == bytes(range(4))
    assert change(long, ["ts", "1:2"]).ts == (1, 2)


def test_the_other_kinds_of_packet():
    assert show(parse(tokens('icmp reply id 7 seq 1 "ping"')).frame()).startswith(
        "icmp 10.0.0.2>10.0.0.9 type 0 code 0 id 7 seq 1"
    )
    assert show(parse(tokens('icmp echo id 7 "ping"')).frame("v6")).startswith("icmp [fd00::2]>[fd00::9] type 128")
    assert show(parse(tokens('ip 47 "gre"')).frame()) == 'ip 47 10.0.0.2>10.0.0.9 "gre"'
    assert show(parse(tokens("arp")).frame()).startswith("raw ffffffffffff")
    assert len(parse(tokens("udp +3000 mtu 1500")).frames()) == 3
    assert len(parse(tokens("A 1 1 pad 60")).frame()) == 70
    assert "(wrong checksum)" in show(parse(tokens('PA 1 1 "x" sum 3')).frame())
