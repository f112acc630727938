"""What the service says of itself, on standard error: lines for people, or a JSON object each."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from veilwatch.sensor.config import LogFormat, LogLevel, LogSection


def open_log(section: LogSection) -> Any:
    """Return a logger as the configuration wants it."""
    form: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if section.format is LogFormat.JSON:
        form = structlog.processors.JSONRenderer(ensure_ascii=True)
    levels = {level: getattr(logging, level.name) for level in LogLevel}
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            form,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(levels[section.level]),
    )
