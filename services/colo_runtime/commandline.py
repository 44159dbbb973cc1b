"""The command line of one service, and what becomes of an error on any command line of ours.

::

    option table --> click command --> run_service
    ConfigError, wrong usage --> one line, exit status 2      StartError --> one line, exit status 1
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from colo_proto.config import Option
from colo_proto.errors import ConfigError, StartError
from colo_runtime.service import Service, run_service

SETTINGS: Final = {
    "token_normalize_func": lambda text: text.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
}

_EPILOG = """Each option may also come from the environment (COLO_ROLE_OPTION or COLO_OPTION) or from --config FILE;
flags win over the environment, and the environment over the file."""


def service_command(service: Service) -> click.Command:
    """The click command of a service."""
    table = service.table()

    def callback(**given: Any) -> NoReturn:
        raise SystemExit(run_service(service, table, given))

    params: list[click.Parameter] = [_param(one) for one in table.values()]
    return click.Command(
        service.role, callback=callback, params=params, help=service.help, context_settings=dict(SETTINGS),
        epilog=_EPILOG,
    )  # fmt: skip


def _param(one: Option) -> click.Option:
    note = []
    if one.choices:
        note.append("|".join(one.choices))
    if one.required:
        note.append("required")
    elif one.default not in ("", ()):
        default = "on" if one.default is True else "off" if one.default is False else one.default
        note.append(f"default {default}" + (f" {one.unit}" if one.unit else ""))
    elif one.unit:
        note.append(one.unit)
    text = one.help + (f"  [{'; '.join(note)}]" if note else "")
    metavar = {"endpoint": "ENDPOINT", "path": "PATH", "rules": "FILE", "host_port": "HOST:PORT"}.get(one.kind)
    if metavar is None:
        metavar = "on|off" if one.type is bool else {int: "N", float: "X"}.get(one.type, "TEXT")
    if one.type is bool:
        # `--insecure` alone says on.
        return click.Option([one.flag, one.name], is_flag=False, flag_value="on", help=text, metavar=metavar)
    return click.Option([one.flag, one.name], multiple=one.many, help=text, metavar=metavar)


def main(service: Service) -> int:
    """`python -m colo_ROLE` is `colo ROLE`. The exit status."""
    return run(service_command(service), sys.argv[1:], f"colo {service.role}")


def run(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Run a command line. Returns the exit status; an operator's error is one line that begins with `name`, never a
    traceback.
    """
    try:
        # A group names itself in its usage line, and what it runs behind that.
        program = name.split(maxsplit=1)[0] if isinstance(command, click.Group) else name
        result: Any = command.main(list(arguments), prog_name=program, standalone_mode=False)
    except ConfigError as error:
        return _fail(name, str(error), 2)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        return _fail(name, error.format_message(), 2)
    except click.ClickException as error:
        return _fail(name, error.format_message(), 1)
    except StartError as error:
        return _fail(name, str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail(name, "interrupted", 130)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _fail(name: str, message: str, code: int) -> int:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code
