import pytest

from colo_proto.config import build, options
from colo_proto.errors import ConfigError
from colo_rewriter.config import RewriterConfig


def test_defaults():
    config = build(RewriterConfig, {})
    assert (config.max_flows, config.established_timeout, config.hold_ms) == (65536, 7440, 1000)
    assert config.answer_neighbours


def test_values_of_text():
    config = build(RewriterConfig, {"max-flows": "7", "answer_neighbours": "off", "outdev": "ipc:///x?split=on"})
    assert (config.max_flows, config.answer_neighbours) == (7, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max-flows", "0"), ("hold-ms", "-1"), ("closed-timeout", "soon"), ("indev", "nowhere"), ("no-such", "1")],
)
def test_a_wrong_value_names_its_option(name, value):
    with pytest.raises(ConfigError, match=name):
        build(RewriterConfig, {name: value})


def test_every_option_has_help():
    assert all(option.help for option in options(RewriterConfig))
