"""Numbers on command lines that belong to no table of options."""

from math import isfinite
from typing import Any

import click


class Number(click.FloatRange):
    """A range that holds neither `nan`, which is in every one by click's reckoning, nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A number in the range; else the usage error says what is wrong."""
        number = super().convert(value, param, ctx)
        if number is not None and not isfinite(number):
            self.fail(f"{value!r} is not a number that can be waited for", param, ctx)
        return number
