"""Logs: few, fat events (`noun.verb_past`), JSON lines unless standard error is a terminal."""

import logging
import sys
from collections.abc import Callable
from typing import Any, Final

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("auto", "json", "console")
TAKEN: Final = frozenset({"event", "level", "timestamp", "exc_info", "stack_info"})
"""Names of fields that mean something to structlog."""


def configure(level: str, form: str, **bound: Any) -> Callable[..., None]:
    """Set structlog up and return `log(level, event, **fields)` with `bound` in every line."""
    import structlog  # noqa: PLC0415  it takes longer to import than all the rest; `colo check` does without

    console = sys.stderr.isatty() if form == "auto" else form == "console"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks if not console else _same,
            structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(default=repr),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger().bind(**bound)
    methods = {name: getattr(logger, name) for name in (*LEVELS, "critical")}
    methods["warn"] = methods["warning"]

    def log(level: str, event: str, /, **fields: Any) -> None:
        # A core's field may be called like one of ours or structlog's; it must not fail for that.
        methods.get(level, methods["info"])(event, **{(k + "_" if k in TAKEN else k): v for k, v in fields.items()})

    return log


def _same(_logger: Any, _name: str, event: Any) -> Any:
    return event
