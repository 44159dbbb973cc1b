"""`colo`: one program for everything. Exit status: 0 clean, 1 failed here and now, 2 usage or configuration."""

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from colo_proto.compiled import cores
from colo_proto.config import host_port
from colo_proto.errors import ConfigError, StartError
from colo_runtime.commandline import SETTINGS, run, service_command
from colo_runtime.numbers import Number
from colo_runtime.options import CONTROL
from colo_runtime.service import services

ELSEWHERE: Final = {
    "lab": ("colo_lab.cli", "The whole pair on this machine, around any program."),
    "demo": ("colo_lab.cli", "A tour of it in half a minute."),
    "netns": ("colo_netdev.hold", "Hold a network namespace and offer it to netdev."),
}
"""Commands that live in their own packages."""

ASKING: Final = {
    "mode": "Put all compares into another mode while they run.",
    "rules": "Put rules for chosen flows into force while they run.",
}
"""Commands of `colo_cli.asking`."""

ORDER: Final = (
    "netdev", "netns", "mirror", "redirector", "rewriter", "compare", "frame", "lab", "demo", "status", "mode", "rules",
    "failover", "resync", "check", "health", "keygen",
)  # fmt: skip


class Colo(click.Group):
    """Imports what a command consists of only when that command runs, so that a filter starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the pipeline."""
        return list(ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find or make a command."""
        service = services().get(cmd_name)
        if service is not None:
            return service_command(service)
        if cmd_name in ELSEWHERE:
            module = ELSEWHERE[cmd_name][0]
            try:
                command: click.Command = getattr(importlib.import_module(module), cmd_name)
            except ModuleNotFoundError as error:
                if error.name is None or not module.startswith(error.name):
                    raise
                raise ConfigError(f"{cmd_name}: this installation has no {module}") from None
            return command
        if cmd_name in ASKING:
            from colo_cli import asking  # noqa: PLC0415

            asked: click.Command = getattr(asking, cmd_name)
            return asked
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line each."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._line(ctx, name)) for name in ORDER])

    def _line(self, ctx: click.Context, name: str) -> str:
        if name in services():
            return services()[name].help
        if name in ELSEWHERE:
            return ELSEWHERE[name][1]
        if name in ASKING:
            return ASKING[name]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(90) if command is not None else ""


@click.group(cls=Colo, context_settings=dict(SETTINGS))
@click.version_option(
    package_name="colo-proxy", prog_name="colo", message=f"%(prog)s, version %(version)s ({cores()} cores)"
)
def colo() -> None:
    """A COLO proxy as a pipeline of processes."""


@colo.command()
@click.option("--frame", metavar="ENDPOINT", help=f"Control link of the frame.  [COLO_FRAME, else {CONTROL}]")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--watch", is_flag=True, help="Again each second, until interrupted.")
@click.option("--timeout", type=Number(0.1, 60), default=2.0, show_default=True, metavar="S", help="How long to wait.")
def status(frame: str | None, as_json: bool, watch: bool, timeout: float) -> None:
    """What every process of this host is doing."""
    from colo_cli.statusview import fetch, show, watch_it  # noqa: PLC0415

    where = frame or os.environ.get("COLO_FRAME") or CONTROL
    if watch:
        watch_it(where, timeout, as_json=as_json)
        return
    body = fetch(where, timeout)
    if as_json:
        click.echo(json.dumps(body, indent=2, sort_keys=True, default=str))
    else:
        show(body)


@colo.command()
@click.option(
    "--frame", metavar="ENDPOINT", help=f"Control link of the secondary's frame.  [COLO_FRAME, else {CONTROL}]"
)
@click.option("--force", is_flag=True, help="Also when the guest is no replica: open connections will break.")
@click.option("--timeout", type=Number(0.1, 600), default=30.0, show_default=True, metavar="S",
              help="How long to wait until it is done.")  # fmt: skip
def failover(frame: str | None, force: bool, timeout: float) -> None:
    """Make the secondary take the client LAN over; exit 0 when it has it."""
    from colo_cli.orders import order_failover  # noqa: PLC0415

    click.echo(order_failover(frame or os.environ.get("COLO_FRAME") or CONTROL, timeout, force=force))


@colo.command()
@click.option("--frame", metavar="ENDPOINT", help=f"Control link of the primary.  [COLO_FRAME, else {CONTROL}]")
@click.option("--timeout", type=Number(0.1, 600), default=30.0, show_default=True, metavar="S",
              help="How long to wait until it is done.")  # fmt: skip
def resync(frame: str | None, timeout: float) -> None:
    """Compare again with a secondary that was lost and is back, or is another one."""
    from colo_cli.orders import order_resync  # noqa: PLC0415

    click.echo(order_resync(frame or os.environ.get("COLO_FRAME") or CONTROL, timeout))


@colo.command()
@click.option("--config", metavar="FILE", help="The TOML file to look at.")
@click.option("--rules", metavar="FILE", help="A file of rules to look at.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of TOML.")
def check(config: str | None, rules: str | None, as_json: bool) -> None:
    """Validate a configuration and print it resolved, defaults and environment included; or a file of rules."""
    from colo_cli.checking import check_file, render  # noqa: PLC0415
    from colo_runtime.rulesfile import read_rules  # noqa: PLC0415

    if rules is not None:
        read_rules(rules)
    if config is None:
        if rules is None:
            raise ConfigError("--config or --rules: one of them is required")
        return
    resolved, errors = check_file(config, os.environ)
    if errors:
        for line in errors:
            click.echo(f"colo check: {line}", err=True)
        raise SystemExit(2)
    click.echo(json.dumps(resolved, indent=2) if as_json else render(resolved))


@colo.command()
@click.option("--http", metavar="HOST:PORT", help="Where the process serves.  [COLO_HTTP]")
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only whether it lives.")
@click.option("--timeout", type=Number(0.1, 60), default=3.0, show_default=True, metavar="S", help="How long to wait.")
def health(http: str | None, ready: bool, timeout: float) -> None:
    """Ask a process of this host how it is; exit 0 when it is well."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415

    where = http or os.environ.get("COLO_HTTP")
    if not where:
        raise ConfigError("--http: required (HOST:PORT that the process serves at), or COLO_HTTP")
    host, port = host_port(where, "--http")
    connection = HTTPConnection(
        {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, timeout=timeout
    )
    try:
        connection.request("GET", "/ready" if ready else "/health")
        response = connection.getresponse()
        text = response.read(4096).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise StartError(f"http://{where}: {error}") from None
    finally:
        connection.close()
    click.echo(text)
    raise SystemExit(0 if response.status == 200 else 1)


@colo.command()
@click.option("--out", default=".", show_default=True, metavar="DIR", help="Where the two files go.")
@click.option("--name", default="colo", show_default=True, metavar="N", help="Their name: N.key and N.key_secret.")
@click.option("--pair", is_flag=True, help="Make the secret of a pair instead, once for both hosts: N.pair_secret.")
def keygen(out: str, name: str, pair: bool) -> None:
    """Make a CURVE key pair for the links between hosts, and print its public key."""
    from colo_runtime.curve import write_pair  # noqa: PLC0415
    from colo_runtime.secretfile import write_secret  # noqa: PLC0415

    if pair:
        click.echo(f"{write_secret(out, name)}: --pair-secret of both frames; a copy goes to the other host", err=True)
        return
    public_file, secret_file, public = write_pair(out, name)
    click.echo(public)
    click.echo(f"{secret_file}: --curve-secret of this host; keep it there", err=True)
    click.echo(f"{public_file}: goes into --curve-peers of the other host", err=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit status; an operator's error is one line, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = "colo " + arguments[0] if arguments and not arguments[0].startswith("-") else "colo"
    return run(colo, arguments, name)
