"""`colo`: one program for everything. Exit status: 0 success, 1 it failed at the moment, 2 usage or configuration.

`colo status` also has 3 and 4 (`colo_frame.verdict`), and `colo compare` of captures has 3.
"""

import contextlib
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
from colo_runtime.service import load, services

LAZY: Final = {
    "netns": ("colo_netdev.hold", "Hold a network namespace and offer it to netdev."),
    "lab": ("colo_lab.cli", "The whole pair on this machine, around any program."),
    "demo": ("colo_lab.cli", "A tour of it in half a minute."),
    "status": ("colo_cli.querying", "Would the pair survive a failure now, and what is every process doing?"),
    "mode": ("colo_cli.querying", "Put all compares into another mode while they run."),
    "rules": ("colo_cli.querying", "Put rules for chosen flows into force while they run."),
    "failover": ("colo_cli.querying", "Make the secondary take the client LAN over; exit 0 when it has it."),
    "resync": ("colo_cli.querying", "Compare again with a secondary that was lost and is back, or is another one."),
}
"""Commands that are imported only when they run: the module, and the line in the list of commands."""

ORDER: Final = (
    "netdev", "netns", "mirror", "redirector", "rewriter", "compare", "frame", "lab", "demo", "status", "mode", "rules",
    "failover", "resync", "check", "health", "keygen",
)  # fmt: skip


class Colo(click.Group):
    """Imports the parts of a command only when that command runs, so that a filter starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the pipeline."""
        return list(ORDER)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find or make a command."""
        service = services().get(cmd_name)
        if service is not None:
            return service_command(service)
        if cmd_name in LAZY:
            command: click.Command = load(f"{LAZY[cmd_name][0]}:{cmd_name}", cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each command."""
        lines = {name: command.get_short_help_str(90) for name, command in self.commands.items()}
        lines |= {name: line for name, (_, line) in LAZY.items()}
        lines |= {name: service.help for name, service in services().items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, lines.get(name, "")) for name in ORDER])


@click.group(cls=Colo, context_settings=dict(SETTINGS))
@click.version_option(
    package_name="colo-proxy", prog_name="colo", message=f"%(prog)s, version %(version)s ({cores()} cores)"
)
def colo() -> None:
    """A COLO proxy as a pipeline of processes."""


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
@click.option("--http", metavar="HOST:PORT", envvar="COLO_HTTP", help="Where the process serves.  [COLO_HTTP]")
@click.option("--ready", is_flag=True, help="Ask whether it is ready, not only whether it lives.")
@click.option("--timeout", type=Number(0.1, 60), default=3.0, show_default=True, metavar="S", help="How long to wait.")
def health(http: str | None, ready: bool, timeout: float) -> None:
    """Ask a process of this host how it is; exit 0 when it is well."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415

    if not http:
        raise ConfigError("--http: required (HOST:PORT that the process serves at), or COLO_HTTP")
    host, port = host_port(http, "--http")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        with contextlib.closing(HTTPConnection(host, port, timeout=timeout)) as connection:
            connection.request("GET", "/ready" if ready else "/health")
            response = connection.getresponse()
            text = response.read(4096).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        raise StartError(f"http://{http}: {error}") from None
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
    """Run a command line and return the exit status. An error of the operator is one line, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = "colo " + arguments[0] if arguments and not arguments[0].startswith("-") else "colo"
    return run(colo, arguments, name)
