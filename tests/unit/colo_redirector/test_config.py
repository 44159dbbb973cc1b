"""Options of `colo redirector`: which ports make sense together."""

import pytest

from colo_proto.errors import ConfigError
from colo_redirector.config import RedirectorConfig

A, B, C = "ipc:///run/a", "ipc:///run/b", "tap://guest"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "--indev or --outdev"),
        ({"netdev": C}, "--indev or --outdev"),
        ({"netdev": C, "indev": A, "outdev": A}, "cannot be the same"),
        ({"indev": A}, "without --netdev"),
        ({"outdev": A}, "without --netdev"),
    ],
)
def test_what_makes_no_sense_is_named(options, named):
    with pytest.raises(ConfigError, match=named):
        RedirectorConfig(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"netdev": C, "indev": A},
        {"netdev": C, "outdev": A},
        {"netdev": C, "indev": A, "outdev": B},
        {"indev": A, "outdev": B},
    ],
)
def test_what_does(options):
    RedirectorConfig(**options)
