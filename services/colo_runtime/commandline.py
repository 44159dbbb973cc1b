"""The command line of one service, and how an error on any of our command lines is reported.

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
_METAVARS = {
    "endpoint": "ENDPOINT", "path": "PATH", "rules": "FILE", "host_port": "HOST:PORT", bool: "on|off", int: "N",
    float: "X",
}  # fmt: skip
"""By kind of option, else by type."""


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
    note = ["|".join(one.choices)] if one.choices else []
    if one.required:
        note.append("required")
    elif one.default not in ("", ()):
        default = {True: "on", False: "off"}[one.default] if one.type is bool else one.default
        note.append(f"default {default}" + (f" {one.unit}" if one.unit else ""))
    elif one.unit:
        note.append(one.unit)
    # A switch without a value, such as `--insecure` alone, means on.
    switch: dict[str, Any] = {"is_flag": False, "flag_value": "on"} if one.type is bool else {"multiple": one.many}
    return click.Option(
        [one.flag, one.name], help=one.help + (f"  [{'; '.join(note)}]" if note else ""),
        metavar=_METAVARS.get(one.kind) or _METAVARS.get(one.type, "TEXT"), **switch,
    )  # fmt: skip


def main(service: Service) -> int:
    """Run `python -m colo_ROLE` as `colo ROLE`. Returns the exit status."""
    return run(service_command(service), sys.argv[1:], f"colo {service.role}")


def run(command: click.Command, arguments: Sequence[str], name: str) -> int:
    """Run a command line and return the exit status.

    An error of the operator is one line on standard error that begins with `name`, never a traceback.
    """
    try:
        # A group adds the name of the subcommand to its usage line itself.
        program = name.split(maxsplit=1)[0] if isinstance(command, click.Group) else name
        result: Any = command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except (ConfigError, click.UsageError) as error:
        return _fail(name, error, 2)
    except (StartError, click.ClickException) as error:
        return _fail(name, error, 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail(name, "interrupted", 130)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BrokenPipeError:
        # The program that read our output (such as `head`) has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return result if isinstance(result, int) else 0


def _fail(name: str, error: Exception | str, code: int) -> int:
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code
