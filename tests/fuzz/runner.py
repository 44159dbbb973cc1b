"""Rounds: their targets and random sources, and the message of a failure."""

import traceback
from collections import Counter
from collections.abc import Callable
from random import Random

from .targets import TARGETS

INPUTS = 400
"""Number of inputs in one round."""

_WHEEL = [name for name, (_, share) in TARGETS.items() for _ in range(share)]


class FoundError(AssertionError):
    """An exception escaped or counters did not add up; the text says how to repeat it."""


def one_round(seed: int, number: int, inputs: int = INPUTS, only: str = "") -> str:
    """Run one round. Returns the name of its target."""
    random = Random(f"{seed}:{number}")
    name = only or _WHEEL[number % len(_WHEEL)]
    try:
        TARGETS[name][0](random, inputs)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        option = f" --only {only}" if only else ""
        raise FoundError(
            f"{name}: {type(error).__name__}: {str(error)[:2000]} ({where.filename}:{where.lineno})\n"
            f"again: python -m tests.fuzz --seed {seed} --round {number}{option}"
        ) from error
    return name


def run(
    seed: int,
    inputs: int,
    only: str = "",
    first: int = 0,
    step: int = 1,
    progress: Callable[[int], None] = lambda _done: None,
) -> Counter[str]:
    """Run rounds `first`, `first + step`, … for `inputs` inputs. Returns the number of inputs for each target."""
    done: Counter[str] = Counter()
    number, total = first, 0
    while total < inputs:
        done[one_round(seed, number, only=only)] += INPUTS
        total += INPUTS
        number += step
        progress(total)
    return done
