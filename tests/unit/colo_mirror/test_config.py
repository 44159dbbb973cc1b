"""Options of `colo mirror`."""

import pytest

from colo_mirror.config import MirrorConfig
from colo_proto.config import build
from colo_proto.errors import ConfigError


def test_ports_are_endpoints():
    assert build(MirrorConfig, {"outdev": "ipc:///run/x?server=on"}).outdev == "ipc:///run/x?server=on"
    for port in ("netdev", "next", "outdev"):
        with pytest.raises(ConfigError, match=f"--{port}: endpoint 'nonsense'"):
            build(MirrorConfig, {port: "nonsense"})
