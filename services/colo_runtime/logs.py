"""Logs: few events (`noun.verb_past`) with many fields; JSON lines unless standard error is a terminal."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")
RESERVED: Final = frozenset({"event", "level", "timestamp", "exc_info", "stack_info"})
"""Names of fields that have a meaning for structlog."""


def configure(level: str, form: str, **bound: Any) -> Callable[..., None]:
    """Set up structlog and return `log(level, event, **fields)`, which adds the fields `bound` to every line."""
    import structlog  # noqa: PLC0415  importing it takes longer than all the rest; `colo check` does not need it

    console = sys.stderr.isatty() if form == "auto" else form == "console"
    rendering = [structlog.dev.ConsoleRenderer()] if console else [
        structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(default=repr),
    ]  # fmt: skip
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger().bind(**bound)
    methods = {name: getattr(logger, name) for name in LEVELS}

    def log(level: str, event: str, /, **fields: Any) -> None:
        # A field of a core may have a reserved name; that must not be an error.
        methods.get(level, methods["info"])(event, **{k + "_" * (k in RESERVED): v for k, v in fields.items()})

    return log
