"""Endpoint to link."""

from colo_proto.core import Port, Way
from colo_proto.endpoint import Endpoint
from colo_proto.errors import ConfigError
from colo_runtime.context import Context
from colo_runtime.link import Deliver, Link


def make_link(port: Port, endpoint: Endpoint, context: Context, deliver: Deliver) -> Link:
    """The link for a port's endpoint, not yet open. `ConfigError` when they do not go together."""
    option = f"--{port.name.replace('_', '-')}"
    if endpoint.split and port.way is not Way.OUT:
        raise ConfigError(f"{option} {endpoint}: split=on is for outputs")
    if endpoint.split and not endpoint.server:
        raise ConfigError(f"{option} {endpoint}: split=on needs server=on, workers connect to it")
    if endpoint.reliable and port.way is Way.BOTH:
        raise ConfigError(f"{option} {endpoint}: reliable=on needs a port with one way")
    if endpoint.reliable and endpoint.split:
        raise ConfigError(f"{option} {endpoint}: reliable=on and split=on do not go together")
    if endpoint.lease and port.way is Way.IN:
        raise ConfigError(f"{option} {endpoint}: lease=on is for outputs")
    return _class(endpoint, port.way)(port.name, port.way, endpoint, context, deliver)


def _class(endpoint: Endpoint, way: Way) -> type[Link]:
    # Each kind is imported when it is used: a process has few of them, and starts sooner.
    if endpoint.scheme == "tap":
        from colo_runtime.tap import TapLink  # noqa: PLC0415

        return TapLink
    if endpoint.scheme == "pcap":
        from colo_runtime.pcaplink import PcapLink  # noqa: PLC0415

        return PcapLink
    if endpoint.is_chardev:
        from colo_runtime.chardevlink import ChardevLink  # noqa: PLC0415

        return ChardevLink
    if endpoint.split:
        from colo_runtime.splitlink import SplitLink  # noqa: PLC0415

        return SplitLink
    if endpoint.reliable:
        from colo_runtime.reliable import ReliableIn, ReliableOut  # noqa: PLC0415

        return ReliableIn if way is Way.IN else ReliableOut
    from colo_runtime.zmqlink import ZmqLink  # noqa: PLC0415

    return ZmqLink
