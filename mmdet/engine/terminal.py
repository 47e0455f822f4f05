"""What of the log reaches the terminal: warnings, one line each, on stderr; the log file has everything."""
import logging
import sys
from typing import Any

from mmengine.logging import MMLogger


def quieten(logger: MMLogger) -> MMLogger:
    """Let only warnings of mmengine's logger reach the terminal, or everything where its level is DEBUG."""
    for i, handler in enumerate(logger.handlers):
        if type(handler) is logging.StreamHandler:
            shows = handler.level if handler.level in (logging.DEBUG, logging.ERROR) else logging.WARNING
            logger.handlers[i] = _TerminalHandler(shows)
    return logger


class _TerminalHandler(logging.StreamHandler):
    """Writes to whatever stderr is at the time, so that a progress bar can keep messages off its line."""

    def __init__(self, level: int):
        logging.Handler.__init__(self, level)
        self.setFormatter(logging.Formatter('%(levelname)s: %(message)s'))

    @property
    def stream(self) -> Any:
        return sys.stderr
