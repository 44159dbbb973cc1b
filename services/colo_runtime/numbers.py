"""Numbers on command lines that have no table of options."""

from math import isfinite
from typing import Any

import click


class Number(click.FloatRange):
    """A range that contains neither `nan`, which click accepts in every range, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A number in the range; otherwise a usage error that says what is wrong."""
        number = super().convert(value, param, ctx)
        if number is not None and not isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number
