"""`python -m tests.fuzz --inputs N --seed S`."""

import sys
import time

import click

from .runner import FoundError, one_round, run
from .targets import TARGETS


@click.command(help=__doc__)
@click.option("--inputs", default=1_000_000, show_default=True, help="how many frames, messages and pieces")
@click.option("--seed", default=1, show_default=True)
@click.option("--only", default="", type=click.Choice(["", *TARGETS]), help="one target alone")
@click.option("--round", "number", type=int, help="this round alone, to see a failure again")
def main(inputs: int, seed: int, only: str, number: int | None) -> None:
    began = time.monotonic()
    shown = began

    def progress(done: int) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 30:
            shown = time.monotonic()
            print(f"{done:,} inputs, {done / (shown - began):,.0f} a second", flush=True)

    try:
        if number is not None:
            print(one_round(seed, number, only=only), "holds")
            return
        done = run(seed, inputs, only, progress=progress)
    except FoundError as error:
        print(error, file=sys.stderr)
        raise
    seconds = time.monotonic() - began
    total = sum(done.values())
    print(f"{total:,} inputs in {seconds:.0f} s, nothing escaped, the books add up; seed {seed}")
    for name, count in sorted(done.items()):
        print(f"  {name:<10} {count:>12,}")


main()
