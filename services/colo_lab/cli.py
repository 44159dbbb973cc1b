"""`colo lab`: the proxy around any real program, on this machine, in one command."""

import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import click

from colo_lab import privileges
from colo_lab.circle import DIED, PLANNED
from colo_lab.config import LabConfig
from colo_lab.files import write_json
from colo_lab.lab import Lab
from colo_lab.supervisor import LabError
from colo_proto.config import DAY_S
from colo_proto.errors import ConfigError
from colo_proto.messages import Mode
from colo_proto.topology import WIRINGS
from colo_runtime.commandline import SETTINGS
from colo_runtime.numbers import Number

_SETTINGS = {**SETTINGS, "show_default": True}
_seconds = functools.partial(click.option, type=Number(0, DAY_S), metavar="S")
_percent = functools.partial(click.option, type=Number(0, 100), default=0.0, metavar="PERCENT")
_file = functools.partial(click.option, type=click.Path(dir_okay=False), metavar="FILE")
_repeated = functools.partial(click.option, multiple=True)


class Stopped(Exception):  # noqa: N818 - not an error
    """The lab got a signal while it was coming up."""


class Signals:
    """SIGINT, SIGTERM and SIGHUP raise `Stopped` while the lab comes up. After that, `got` holds the last of them."""

    def __init__(self) -> None:
        self.got = 0
        self.raising = True
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def only_record(self) -> None:
        """From now on a signal raises nothing."""
        self.raising = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.got = number
        if self.raising:
            self.raising = False
            raise Stopped


def _exit_status(name: str, lab: Lab, body: Callable[[Signals], int]) -> int:
    """What `body` returns, or what becomes of it when it fails. The lab is taken down in any case."""
    signals = Signals()
    try:
        return body(signals)
    except Stopped:
        return 128 + signals.got
    except LabError as error:
        click.echo(f"{name}: {error}", err=True)
        return 1
    finally:
        signals.only_record()
        lab.down()


@click.command(context_settings=_SETTINGS)
@click.option("--guest", default="", metavar="CMD", help="Shell command that both guests run.")
@click.option("--secondary-guest", default="", metavar="CMD", help="Another command for the secondary guest.")
@click.option(
    "--wiring",
    type=click.Choice(WIRINGS),
    default="faithful",
    help="All redirectors, few hops, or hosts that can both lead.",
)
@click.option("--compare", "workers", type=int, default=1, metavar="N", help="Number of compare workers.")
@click.option("--mode", type=click.Choice(Mode.ALL), default=Mode.ENFORCE, help="Mode that compare starts in.")
@click.option("--compare-timeout", type=int, metavar="MS", help="Age at which a held frame asks for a checkpoint.")
@click.option("--expired-scan-cycle", type=int, metavar="MS", help="How often the age of held frames is checked.")
@click.option("--max-queue-size", type=int, metavar="N", help="Frames held per flow and direction.")
@_repeated("--option", "options", metavar="WHO.NAME=VALUE", help="Any option of a process, by role or id.")
@_file("--state", help="Write which process runs where, as JSON, once everything is up.")
@_file("--report", help="Write the numbers, as JSON, at the end.")
@_repeated(
    "--failover",
    "failovers",
    metavar="S[,planned@S]",
    help="After S seconds all of the host that leads dies, and the other one takes over by itself; planned@S orders it "
    "instead. Several times only in the symmetric wiring.",
)
@_seconds("--repair-after", default=3.0, help="Symmetric wiring: start a host again S seconds after its death.")
@_repeated(
    "--kill",
    "kills",
    metavar="NAME@S[,NAME@S]",
    help="Kill a process, a guest (guest-p) or all of a host (host-p) after S seconds.",
)
@_repeated("--scale", "scales", metavar="N@S[,N@S]", help="Have N compare workers after S seconds, while all runs.")
@_percent("--loss", help="Frames lost on the client LAN, each way.")
@_percent("--reorder", help="Frames on the client LAN that others overtake, each way.")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=1, metavar="N", help="Which frames those are.")
@click.option("--watch-lan", is_flag=True, help="Capture on the client LAN from which port the guest is heard.")
@_seconds("--timeout", help="End the client after S seconds (exit status 124).")
@_seconds("--guest-wait", default=5.0, help="How long to wait for a guest to listen on a port.")
@_seconds("--start-timeout", default=30.0, help="How long everything may take to come up.")
@click.option("--restart/--no-restart", default=True, help="Start processes again that die.")
@click.option("--curve", is_flag=True, help="Use CURVE keys on the links between the hosts, as real hosts need them.")
@click.option("--vote", default="", metavar="STORE", help="Use a third vote: etcd://HOST:PORT[,HOST:PORT...].")
@click.option("--logs", default="", metavar="DIR", help="Keep the logs of the processes there.")
@click.option("--log-level", default="info", help="Log level of the processes.")
@click.option("--quiet", "-q", is_flag=True, help="No live table, no messages of the lab itself.")
@click.argument("client", nargs=-1, required=True, type=click.UNPROCESSED)
def lab(**given: Any) -> None:
    """Run CLIENT COMMAND against a guest behind the whole proxy, all on this machine.

    Makes network namespaces for a client LAN and for a primary and a secondary guest (same addresses),
    starts every process of both hosts, and runs --guest in both guests. Then it runs CLIENT COMMAND in the client's
    namespace, with COLO_GUEST and COLO_GUEST6 set to the guest's addresses. At the end it takes everything down and
    exits with the client's status.

    \b
    colo lab --guest 'python3 -m http.server 80' -- sh -c 'curl -s http://$COLO_GUEST/ | head'
    """  # noqa: D301  click's mark for "do not wrap" is the character itself
    privileges.require()
    for name in ("state", "report"):
        if given[name] and not Path(given[name]).absolute().parent.is_dir():
            raise ConfigError(f"--{name} {given[name]}: its directory does not exist")
    one = Lab(config_of(given))
    if not given["quiet"]:
        one.supervisor.on_event = lambda text: click.echo(f"colo lab: {text}", err=True)
    sys.exit(_exit_status("colo lab", one, lambda signals: _run(one, given, signals)))


def _run(one: Lab, given: dict[str, Any], signals: Signals) -> int:
    one.up()
    if given["state"]:
        one.supervisor.on_change = lambda: write_json(given["state"], one.state())
        one.supervisor.on_change()
    signals.only_record()
    if signals.got:
        return 128 + signals.got
    with _display(one, quiet=given["quiet"]) as tick:
        status = one.run_client(
            given["client"], timeout=given["timeout"], on_tick=tick, interrupted=lambda: signals.got
        )
    if given["report"]:
        write_json(given["report"], one.report(final=True))
    return status


@click.command(context_settings=_SETTINGS)
@click.option("--wiring", type=click.Choice(WIRINGS), default="faithful", help="As in `colo lab`.")
def demo(wiring: str) -> None:
    """A tour in half a minute: traffic through the whole proxy, a secondary that answers differently, the numbers."""
    privileges.require()
    from rich.console import Console  # noqa: PLC0415 - rich takes a while to import

    from colo_lab.demo import Demo  # noqa: PLC0415

    show = Demo(Console(), wiring)

    def run(signals: Signals) -> int:
        show.interrupted = lambda: signals.got
        status = show.run(on_up=signals.only_record)
        return 128 + signals.got if signals.got else status

    sys.exit(_exit_status("colo demo", show.lab, run))


def config_of(given: dict[str, Any]) -> LabConfig:
    """The lab's configuration from the values of the command line."""
    extra: dict[str, dict[str, str]] = {}
    short = ("compare_timeout", "expired_scan_cycle", "max_queue_size")
    for text in (*(f"compare.{name}={given[name]}" for name in short if given[name] is not None), *given["options"]):
        key, sep, value = text.partition("=")
        who, dot, name = key.partition(".")
        if not (sep and dot and who and name):
            raise ConfigError(f"--option {text}: WHO.NAME=VALUE expected, as in compare.max-flows=100")
        extra.setdefault(who, {})[name.replace("_", "-")] = value
    derived: dict[str, Any] = {
        "failovers": tuple(_failovers(given["failovers"])),
        "kills": tuple(_at_times("--kill NAME", "m0", given["kills"], str)),
        "scales": tuple(_at_times("--scale N", "4", given["scales"], int)),
        "extra": extra,
    }
    return LabConfig(**{one.name: {**given, **derived}[one.name] for one in fields(LabConfig)})


def _failovers(texts: Iterable[str]) -> Iterator[tuple[str, float]]:
    """`2,planned@9` as pairs of a kind and seconds."""
    for text in ",".join(texts).split(",") if texts else ():
        kind, planned, at = text.rpartition("@")
        try:
            yield {"": DIED, "planned@": PLANNED}[kind + planned], float(at)
        except (KeyError, ValueError):
            raise ConfigError(f"--failover {text}: S or planned@S expected, as in 2.5 or planned@9") from None


def _at_times(
    option: str, example: str, texts: Iterable[str], kind: Callable[[str], Any]
) -> Iterator[tuple[Any, float]]:
    """`m0@2,comp0@3.5` as pairs of a value and seconds."""
    name, _, what = option.partition(" ")
    for text in ",".join(texts).split(",") if texts else ():
        value, _, at = text.partition("@")
        try:
            yield kind(value), float(at)
        except ValueError:
            raise ConfigError(f"{name} {text}: {what}@SECONDS expected, as in {example}@2.5") from None


@contextlib.contextmanager
def _display(one: Lab, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """The live table, if standard error is a terminal: what draws it anew."""
    if quiet or not sys.stderr.isatty():
        yield lambda _now: None
        return
    from colo_lab.table import Footer, LiveTable  # noqa: PLC0415 - rich takes a while to import

    footer = Footer(sys.stderr)
    table = LiveTable(f"colo lab, {one.config.wiring} wiring, {one.config.workers} compare")
    try:
        yield lambda _now: footer.show(table.draw(one.processes()))
    finally:
        footer.close()
