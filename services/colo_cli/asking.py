"""`colo mode` and `colo rules`: what is asked of a running frame."""

import os
import sys
from typing import Any

import click

from colo_proto.errors import ConfigError, StartError
from colo_proto.messages import Mode, Query
from colo_runtime.client import NoAnswerError, ask
from colo_runtime.numbers import Number
from colo_runtime.options import CONTROL
from colo_runtime.rulesfile import read_rules

_FRAME = click.option("--frame", metavar="ENDPOINT", help=f"Control link of the frame.  [COLO_FRAME, else {CONTROL}]")
_TIMEOUT = click.option(
    "--timeout", type=Number(0.1, 60), default=2.0, show_default=True, metavar="S", help="How long to wait."
)


def question(frame: str | None, query: Query, timeout: float) -> dict[str, Any]:
    """Ask the frame (that of the environment when None). `StartError` when it refuses, or nobody answers."""
    where = frame or os.environ.get("COLO_FRAME") or CONTROL
    try:
        answer = ask(where, query, timeout)
    except NoAnswerError as error:
        raise StartError(str(error)) from None
    if not answer.ok:
        raise StartError(f"{where}: {answer.error}")
    return answer.body


@click.command()
@click.argument("wanted", type=click.Choice(Mode.ALL), required=False, metavar="[enforce|shadow|bypass]")
@_FRAME
@_TIMEOUT
def mode(wanted: str | None, frame: str | None, timeout: float) -> None:
    """Put all compares into another mode while they run, or say which one they are in."""
    body = question(frame, Query("mode", {} if wanted is None else {"mode": wanted}), timeout)
    click.echo(body["mode"])


@click.command()
@click.argument("file", required=False, metavar="[FILE]")
@_FRAME
@_TIMEOUT
def rules(file: str | None, frame: str | None, timeout: float) -> None:
    """Put the rules of FILE (- for standard input) into force at all compares, or print those in force."""
    if file is None:
        text = question(frame, Query("rules"), timeout)["rules"]
        if text is None:
            click.echo("the frame has said none: each compare follows its own --rules", err=True)
        else:
            click.echo(text, nl=not text.endswith("\n"))
        return
    question(frame, Query("rules", {"rules": _standard_input() if file == "-" else read_rules(file)}), timeout)


def _standard_input() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input: {error}") from None
