import pytest

from colo_frame.config import FrameConfig
from colo_proto.config import build, options
from colo_proto.errors import ConfigError


def test_defaults():
    config = build(FrameConfig, {})
    assert (config.side, config.driver, config.mode, config.heartbeat_interval) == ("primary", "flush", "enforce", 500)
    assert config.expected() == ()


def test_workers_are_split_at_commas():
    assert build(FrameConfig, {"workers": " comp0, comp1 ,,comp0"}).expected() == ("comp0", "comp1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("side", "tertiary"),
        ("mode", "off"),
        ("driver", "teleport"),
        ("heartbeat-interval", "0"),
        ("flush-timeout", "x"),
    ],
)
def test_a_wrong_value_names_its_option(name, value):
    with pytest.raises(ConfigError, match=name):
        build(FrameConfig, {name: value})


def test_every_option_has_help():
    assert all(option.help for option in options(FrameConfig))
