"""Options as data."""

from dataclasses import dataclass
from typing import Literal

import pytest

from colo_proto.config import build, host_port, option, options
from colo_proto.errors import ConfigError
from colo_runtime.service import services


@dataclass(frozen=True, slots=True)
class Some:
    outdev: str = option(kind="endpoint", help="where to")
    timeout: int = option(3000, unit="ms", least=1, most=10_000, help="how long")
    share: float = option(0.5, least=0, help="how much")
    fast: bool = option(False, help="whether")
    mode: str = option("a", choices=("a", "b"), help="which")
    way: Literal["in", "out"] = "in"
    tap: tuple[str, ...] = option((), help="several")
    http: str = option("", kind="host_port", help="where")
    inner: str = option("x", kind="hidden", help="not for the command line")
    plain: int = 3


def test_the_table():
    table = {one.name: one for one in options(Some)}
    assert list(table) == ["outdev", "timeout", "share", "fast", "mode", "way", "tap", "http", "plain"]
    assert table["outdev"].required
    assert not table["timeout"].required
    assert table["timeout"].flag == "--timeout"
    assert (table["timeout"].default, table["timeout"].unit, table["timeout"].type) == (3000, "ms", int)
    assert table["tap"].many
    assert table["way"].choices == ("in", "out")
    assert table["plain"].help == ""


def test_text_and_toml_types_give_the_same():
    text = build(Some, {"outdev": "tap://a", "timeout": "5", "share": "1", "fast": "on", "tap": ["x", "y"]})
    toml = build(Some, {"outdev": "tap://a", "timeout": 5, "share": 1, "fast": True, "tap": ("x", "y")})
    assert text == toml
    assert text.tap == ("x", "y")
    assert build(Some, {"outdev": "tap://a", "tap": "x"}).tap == ("x",)


def test_dashes_are_underscores():
    @dataclass(frozen=True)
    class Dashed:
        one_two: int = 1

    assert build(Dashed, {"one-two": "7"}).one_two == 7


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "--outdev: required"),
        ({"outdev": "tap://a", "timeuot": 1}, "timeout"),
        ({"outdev": "tap://a", "wholly_other": 1}, "known: "),
        ({"outdev": "tap:/a"}, "--outdev"),
        ({"outdev": 5}, "text expected"),
        ({"outdev": "tap://a", "timeout": "0"}, "at least 1"),
        ({"outdev": "tap://a", "timeout": 10_001}, "at most 10000"),
        ({"outdev": "tap://a", "timeout": "ten"}, "whole number"),
        ({"outdev": "tap://a", "timeout": 1.5}, "whole number"),
        ({"outdev": "tap://a", "timeout": True}, "whole number"),
        ({"outdev": "tap://a", "timeout": [1]}, "whole number"),
        ({"outdev": "tap://a", "share": "nan"}, "a number"),
        ({"outdev": "tap://a", "share": "inf"}, "a number"),
        ({"outdev": "tap://a", "share": float("nan")}, "a number"),
        ({"outdev": "tap://a", "fast": "perhaps"}, "on or off"),
        ({"outdev": "tap://a", "mode": "c"}, "one of a, b"),
        ({"outdev": "tap://a", "way": "up"}, "one of in, out"),
        ({"outdev": "tap://a", "http": "9000"}, "HOST:PORT"),
        ({"outdev": "tap://a", "inner": "y"}, "inner"),
    ],
)
def test_what_is_refused_by_name(values, named):
    with pytest.raises(ConfigError, match=named):
        build(Some, values)


def test_the_source_of_a_value_is_named():
    with pytest.raises(ConfigError, match=r"^colo.toml: \[mirror\] timeout: "):
        {one.name: one for one in options(Some)}["timeout"].parse("x", "colo.toml: [mirror] timeout")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:80", ("::1", 80)), (":0", ("", 0))],
)
def test_host_port(text, expected):
    assert host_port(text) == expected


@pytest.mark.parametrize("text", ["80", "", "h:", "h:x", "h:65536", "h:-1", "h:²"])
def test_host_port_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        host_port(text)


HUGE = [
    "9" * 26,
    "9" * 400,
    "9" * 5000,
    "-" + "9" * 26,
    int("9" * 400),
    "nan",
    "inf",
    "-inf",
    "1e999",
    float("nan"),
    float("inf"),
]


@pytest.mark.parametrize("role", sorted(services()))
def test_every_number_has_bounds_and_what_is_beyond_them_is_one_line(role):
    numbers = [one for one in services()[role].table().values() if one.type in (int, float)]
    assert numbers
    for one in numbers:
        assert one.least is not None, one.flag
        assert one.most is not None, one.flag
        assert one.least <= one.default <= one.most < 1 << 40, one.flag
        for value in (*HUGE, one.most + 1, one.least - 1, True, False):
            with pytest.raises(ConfigError) as error:
                one.parse(value)
            assert one.flag in str(error.value)
            assert len(str(error.value)) < 200
        assert one.parse(str(one.most)) == one.most
        assert one.parse(one.least) == one.least


@pytest.mark.parametrize("value", ["9" * 5000, [], {}, 2, 1.5, "perhaps", None, ["on"]])
def test_what_is_no_switch(value):
    with pytest.raises(ConfigError) as error:
        build(Some, {"outdev": "tap://a", "fast": value})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("port", ["²", "٣", "9" * 5000, "65536", "-1", "0x50", " 80", ""])
def test_what_is_no_port(port):
    for wrong in (lambda: host_port(f"h:{port}"), lambda: build(Some, {"outdev": f"tcp://h:{port}"})):
        with pytest.raises(ConfigError):
            wrong()
