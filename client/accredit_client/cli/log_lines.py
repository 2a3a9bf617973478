"""The log of a command that goes on: a line each on stderr, its time in UTC; or an object each."""

import json
import logging
import sys
from datetime import UTC, datetime

from accredit_client.cli import output

CHATTY = ("httpx2", "grpclib")  # a line for each request otherwise


class _Line(logging.Formatter):
    """``2026-01-31T09:30:00Z WARNING …``; a traceback follows on lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """One line, whatever somebody had us say."""
        at = datetime.fromtimestamp(record.created, UTC)
        return f"{at:%Y-%m-%dT%H:%M:%SZ} {record.levelname} {output.shown(record.message)}"


class _Object(logging.Formatter):
    """``{"at": …, "level": …, "logger": …, "message": …}``, and ``traceback`` of an error."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        said = {
            "at": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def begin(*, as_json: bool) -> None:
    """Log from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Object() if as_json else _Line())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
