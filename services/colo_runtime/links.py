"""From an endpoint to its link."""

from importlib import import_module

from colo_proto.config import flag
from colo_proto.core import Port, Way
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError
from colo_runtime.context import Context
from colo_runtime.link import Deliver, Link


def make_link(port: Port, endpoint: Endpoint, context: Context, deliver: Deliver) -> Link:
    """The link for the endpoint of a port, not yet open. `ConfigError` when they do not go together."""
    for wrong, why in (
        (endpoint.split and port.way is not Way.OUT, "split=on is for outputs"),
        (endpoint.split and not endpoint.server, "split=on needs server=on, workers connect to it"),
        (endpoint.reliable and port.way is Way.BOTH, "reliable=on needs a port with one direction"),
        (endpoint.reliable and endpoint.split, "reliable=on and split=on do not go together"),
        (endpoint.lease and port.way is Way.IN, "lease=on is for outputs"),
    ):
        if wrong:
            raise ConfigError(f"{flag(port.name)} {endpoint}: {why}")
    # Each kind is imported when it is used: a process needs few of them, and starts sooner.
    module, name = _kind(endpoint, port.way)
    made: Link = getattr(import_module(f"colo_runtime.{module}"), name)(port.name, port.way, endpoint, context, deliver)
    return made


def _kind(endpoint: Endpoint, way: Way) -> tuple[str, str]:
    """The module and the class."""
    if endpoint.is_chardev:
        return "chardevlink", "ChardevLink"
    if endpoint.split:
        return "splitlink", "SplitLink"
    if endpoint.reliable:
        return "reliable", "ReliableIn" if way is Way.IN else "ReliableOut"
    return {"tap": ("tap", "TapLink"), "pcap": ("pcaplink", "PcapLink")}.get(endpoint.scheme, ("zmqlink", "ZmqLink"))
