"""Tells whether the cores are compiled, and holds what mypyc is told beside annotations (without effect otherwise).

`hatch_build.py` says which modules these are.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_: Any) -> Callable[[type], type]:
        """`acyclic=True`: instances are never part of a reference cycle, so the garbage collector leaves them alone."""
        return lambda cls: cls


def cores() -> str:
    """How the cores of this installation run: `compiled` or `interpreted`."""
    found = find_spec("colo_proto.frame")
    return "compiled" if found is not None and str(found.origin).endswith(".so") else "interpreted"


__all__ = ["cores", "mypyc_attr"]
