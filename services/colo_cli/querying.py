"""The commands that talk to the COLO frame of a host: `status`, `mode`, `rules`, `failover`, `resync`."""

import json
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from colo_proto.errors import ConfigError
from colo_proto.messages import Mode, Query
from colo_runtime.client import request
from colo_runtime.numbers import Number
from colo_runtime.options import CONTROL
from colo_runtime.rulesfile import read_rules

Command = TypeVar("Command", bound=Callable[..., None])


def _options(frame: str, limit: float, default: float, help: str) -> Callable[[Command], Command]:  # noqa: A002
    """The options `--frame` and `--timeout` (seconds)."""
    frame_option = click.option(
        "--frame", envvar="COLO_FRAME", default=CONTROL, metavar="ENDPOINT",
        help=f"Control link of {frame}.  [COLO_FRAME, else {CONTROL}]",
    )  # fmt: skip
    timeout = click.option(
        "--timeout", type=Number(0.1, limit), default=default, show_default=True, metavar="S", help=help
    )
    return lambda command: frame_option(timeout(command))


_query = _options("the frame", 60, 2.0, "How long to wait.")


@click.command()
@_query
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--watch", is_flag=True, help="Again each second, until interrupted.")
def status(frame: str, as_json: bool, watch: bool, timeout: float) -> None:
    """Would the pair survive a failure now, and what is every process of this host doing?

    Exit status: 0 protected, 3 degraded, 4 unprotected.
    """
    from colo_cli.pairview import exit_status  # noqa: PLC0415  rich is needed for a table only
    from colo_cli.statusview import show, watch_it  # noqa: PLC0415

    if watch:
        watch_it(frame, timeout, as_json=as_json)
        return
    body = request(frame, Query("status"), timeout)
    if as_json:
        click.echo(json.dumps(body, indent=2, sort_keys=True, default=str))
    else:
        show(body)
    raise SystemExit(exit_status(body))


@click.command()
@click.argument("wanted", type=click.Choice(Mode.ALL), required=False, metavar="[enforce|shadow|bypass]")
@_query
def mode(wanted: str | None, frame: str, timeout: float) -> None:
    """Put all compares into another mode while they run, or say which one they are in."""
    click.echo(request(frame, Query("mode", {} if wanted is None else {"mode": wanted}), timeout)["mode"])


@click.command()
@click.argument("file", required=False, metavar="[FILE]")
@_query
def rules(file: str | None, frame: str, timeout: float) -> None:
    """Put the rules of FILE (- for standard input) into force at all compares, or print those in force."""
    if file is not None:
        request(frame, Query("rules", {"rules": _standard_input() if file == "-" else read_rules(file)}), timeout)
        return
    text = request(frame, Query("rules"), timeout)["rules"]
    if text is None:
        click.echo("the frame has set no rules: each compare follows its own --rules", err=True)
    else:
        click.echo(text, nl=not text.endswith("\n"))


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input: {error}") from None


@click.command()
@_options("the secondary's frame", 600, 30.0, "How long to wait until it is done.")
@click.option("--force", is_flag=True, help="Also when the guest is no replica: open connections will break.")
def failover(frame: str, force: bool, timeout: float) -> None:
    """Make the secondary take the client LAN over; exit 0 when it has it."""
    from colo_cli.orders import order_failover  # noqa: PLC0415

    click.echo(order_failover(frame, timeout, force=force))


@click.command()
@_options("the primary", 600, 30.0, "How long to wait until it is done.")
def resync(frame: str, timeout: float) -> None:
    """Compare again with a secondary that was lost and is back, or is another one."""
    from colo_cli.orders import order_resync  # noqa: PLC0415

    click.echo(order_resync(frame, timeout))
