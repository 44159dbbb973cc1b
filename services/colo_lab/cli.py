"""`colo lab`: the proxy around any real program, on this machine, in one command."""

import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from colo_lab import elevate
from colo_lab.config import LabConfig
from colo_lab.crew import LabError
from colo_lab.files import write_json
from colo_lab.lab import Lab
from colo_proto.config import DAY_S
from colo_proto.errors import ConfigError
from colo_proto.messages import Mode
from colo_proto.topology import WIRINGS
from colo_runtime.numbers import Number

_SETTINGS = {
    "token_normalize_func": lambda text: text.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "show_default": True,
}


class Stopped(Exception):  # noqa: N818 - not an error
    """A signal has asked us to leave."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Signals:
    """SIGINT, SIGTERM and SIGHUP raise an exception while the lab starts, and are only noted after that."""

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.got = 0
        self.raising = True

    @contextlib.contextmanager
    def handled(self) -> Iterator["Signals"]:
        before = {number: signal.signal(number, self._handle) for number in self.numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def settle(self) -> None:
        """From now on a signal is only noted."""
        self.raising = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.got = number
        if self.raising:
            self.raising = False
            raise Stopped(number)


@click.command(context_settings=_SETTINGS)
@click.option("--guest", default="", metavar="CMD", help="Shell command that both guests run.")
@click.option("--secondary-guest", default="", metavar="CMD", help="Another command for the secondary guest.")
@click.option(
    "--wiring",
    type=click.Choice(WIRINGS),
    default="faithful",
    help="A redirector at each end, or as few hops as can be.",
)
@click.option("--compare", "workers", type=int, default=1, metavar="N", help="Number of compare workers.")
@click.option("--mode", type=click.Choice(Mode.ALL), default=Mode.ENFORCE, help="Mode that compare starts in.")
@click.option(
    "--compare-timeout", type=int, default=None, metavar="MS", help="Age at which a held frame asks for a checkpoint."
)
@click.option("--expired-scan-cycle", type=int, default=None, metavar="MS", help="How often ages are looked at.")
@click.option("--max-queue-size", type=int, default=None, metavar="N", help="Frames held per flow and direction.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="WHO.NAME=VALUE",
    help="Any option of a process, by role or id. May be repeated.",
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False),
    default=None,
    metavar="FILE",
    help="Write who runs where, as JSON, once it is up.",
)
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False),
    default=None,
    metavar="FILE",
    help="Write the numbers, as JSON, at the end.",
)
@click.option(
    "--failover",
    type=Number(0, DAY_S),
    default=None,
    metavar="S",
    help="After S seconds everything of the primary host dies, and the secondary takes over by itself.",
)
@click.option(
    "--kill",
    "kills",
    multiple=True,
    metavar="NAME@S[,NAME@S]",
    help="Kill a process, guest-p, guest-s, or all of host-p or host-s after S seconds.",
)
@click.option(
    "--scale",
    "scales",
    multiple=True,
    metavar="N@S[,N@S]",
    help="Have N compare workers after S seconds, while everything runs.",
)
@click.option(
    "--loss", type=Number(0, 100), default=0.0, metavar="PERCENT", help="Frames lost on the client's LAN, each way."
)
@click.option(
    "--reorder", type=Number(0, 100), default=0.0, metavar="PERCENT", help="Frames on it that others overtake."
)
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=1, metavar="N", help="Which frames those are.")
@click.option("--watch-lan", is_flag=True, help="Capture on the client LAN whose port the guest is heard from.")
@click.option(
    "--timeout", type=Number(0, DAY_S), default=None, metavar="S", help="End the client after S seconds (exit 124)."
)
@click.option(
    "--guest-wait",
    type=Number(0, DAY_S),
    default=5.0,
    metavar="S",
    help="How long to wait for a guest to listen on a port.",
)
@click.option(
    "--start-timeout", type=Number(0, DAY_S), default=30.0, metavar="S", help="How long everything may take to be up."
)
@click.option("--restart/--no-restart", default=True, help="Start processes that die again.")
@click.option("--curve", is_flag=True, help="CURVE keys on the links between the hosts, as real ones need.")
@click.option("--logs", default="", metavar="DIR", help="Keep the processes' logs there.")
@click.option("--log-level", default="info", help="Log level of the processes.")
@click.option("--quiet", "-q", is_flag=True, help="No live table, no messages of the lab itself.")
@click.argument("client", nargs=-1, required=True, type=click.UNPROCESSED)
def lab(**given: Any) -> None:
    """Run CLIENT COMMAND against a guest behind the whole proxy, all on this machine.

    Makes network namespaces for a client LAN and for a primary and a secondary guest (same addresses),
    starts every process of both roles, runs --guest in both guests, then CLIENT in the client's
    namespace with COLO_GUEST and COLO_GUEST6 set to the guest's addresses. Takes everything down and
    exits with the client's status.

    \b
    colo lab --guest 'python3 -m http.server 80' -- sh -c 'curl -s http://$COLO_GUEST/ | head'
    """  # noqa: D301  click's mark for "do not wrap" is the character itself
    elevate.require()
    sys.exit(_run(given))


@click.command(context_settings=_SETTINGS)
@click.option("--wiring", type=click.Choice(WIRINGS), default="faithful", help="As in `colo lab`.")
def demo(wiring: str) -> None:
    """A tour in half a minute: traffic through the whole proxy, a secondary that answers differently, the numbers."""
    elevate.require()
    from rich.console import Console  # noqa: PLC0415 - rich takes a while to import

    from colo_lab.demo import Demo  # noqa: PLC0415

    with Signals().handled() as signals:
        show = Demo(Console(), wiring, interrupted=lambda: signals.got)
        try:
            status = show.run(on_up=signals.settle)
        except Stopped as stopped:
            status = 128 + stopped.number
        except LabError as error:
            click.echo(f"colo demo: {error}", err=True)
            status = 1
        finally:
            signals.settle()
            show.lab.down()
    sys.exit(128 + signals.got if signals.got else status)


def _run(given: dict[str, Any]) -> int:
    for name in ("state", "report_file"):
        if given[name] and not Path(given[name]).absolute().parent.is_dir():
            raise ConfigError(f"--{name.removesuffix('_file')} {given[name]}: its directory does not exist")
    quiet = given["quiet"]
    one = Lab(config_of(given))
    if not quiet:
        one.crew.on_event = lambda text: click.echo(f"colo lab: {text}", err=True)
    with Signals().handled() as signals:
        try:
            one.up()
            if given["state"]:
                one.crew.on_change = lambda: write_json(given["state"], one.state())
                one.crew.on_change()
            signals.settle()
            if signals.got:
                return 128 + signals.got
            with _display(one, quiet=quiet) as tick:
                status = one.run_client(
                    given["client"], timeout=given["timeout"], on_tick=tick, interrupted=lambda: signals.got
                )
            if given["report_file"]:
                write_json(given["report_file"], one.report(final=True))
        except Stopped as stopped:
            return 128 + stopped.number
        except LabError as error:
            click.echo(f"colo lab: {error}", err=True)
            return 1
        finally:
            signals.settle()
            one.down()
    return status


def config_of(given: dict[str, Any]) -> LabConfig:
    """The lab's configuration from the command line's values."""
    extra: dict[str, dict[str, str]] = {}
    for name in ("compare_timeout", "expired_scan_cycle", "max_queue_size"):
        if given.get(name) is not None:
            extra.setdefault("compare", {})[name.replace("_", "-")] = str(given[name])
    for text in given.get("options", ()):
        key, sep, value = text.partition("=")
        who, dot, name = key.partition(".")
        if not (sep and dot and who and name):
            raise ConfigError(f"--option {text}: WHO.NAME=VALUE expected, as in compare.max-flows=100")
        extra.setdefault(who, {})[name.replace("_", "-")] = value
    return LabConfig(
        guest=given["guest"],
        secondary_guest=given["secondary_guest"],
        wiring=given["wiring"],
        workers=given["workers"],
        mode=given["mode"],
        guest_wait=given["guest_wait"],
        start_timeout=given["start_timeout"],
        restart=given["restart"],
        curve=given["curve"],
        logs=given["logs"],
        log_level=given["log_level"],
        failover=given["failover"],
        kills=tuple(kills_of(given["kills"])),
        scales=tuple(scales_of(given["scales"])),
        watch_lan=given["watch_lan"],
        loss=given["loss"],
        reorder=given["reorder"],
        seed=given["seed"],
        extra=extra,
    )


def kills_of(texts: Iterable[str]) -> Iterator[tuple[str, float]]:
    """`m0@2,comp0@3.5` as pairs of name and seconds."""
    for text in ",".join(texts).split(",") if texts else ():
        name, _, at = text.partition("@")
        try:
            yield name, float(at)
        except ValueError:
            raise ConfigError(f"--kill {text}: NAME@SECONDS expected, as in m0@2.5") from None


def scales_of(texts: Iterable[str]) -> Iterator[tuple[int, float]]:
    """`4@2,2@5.5` as pairs of a number of workers and seconds."""
    for text in ",".join(texts).split(",") if texts else ():
        number, _, at = text.partition("@")
        try:
            yield int(number), float(at)
        except ValueError:
            raise ConfigError(f"--scale {text}: N@SECONDS expected, as in 4@2.5") from None


@contextlib.contextmanager
def _display(one: Lab, *, quiet: bool) -> Iterator[Any]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from colo_lab.table import Footer, Rates, table  # noqa: PLC0415 - rich takes a while to import

    footer, rates = Footer(sys.stderr), Rates()
    title = f"colo lab, {one.config.wiring} wiring, {one.config.workers} compare"

    def tick(_now: float) -> None:
        processes = one.processes()
        rates.look(processes)
        footer.show(table(processes, rates, title))

    try:
        yield tick
    finally:
        footer.close()
