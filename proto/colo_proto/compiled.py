"""What mypyc is told beyond annotations (`hatch_build.py`); the interpreter does not mind."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_: Any) -> Callable[[type], type]:
        """`acyclic=True`: instances are no part of a cycle, so the garbage collector keeps no list of them."""
        return lambda cls: cls


__all__ = ["mypyc_attr"]
