"""One child process: started, sent our signals, stopped, and its exit code."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from accredit_client.cli.forwarding import Forwarding

GRACE = 10.0  # seconds between asking a process to end and ending it
OF_A_SIGNAL = 128  # an exit code says so the number of the signal that ended a process


class Child:
    """A child that gets the signals that we get, while this context is open.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._forwarding = Forwarding(same_terminal=True)
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._forwarding.__enter__()
        try:
            self._process = subprocess.Popen(self._command, env=self._environment)
        except BaseException:
            self._forwarding.__exit__(None, None, None)
            raise
        self._forwarding.to(self._process.send_signal)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._forwarding.__exit__(kind, error, traceback)

    def wait(self, seconds: float) -> int | None:
        """Wait so long for the end; returns the exit code, or None while it runs.

        A child that a signal ended has 128 and the signal's number, as in a shell.
        """
        if not self._ended.wait(seconds):
            return None
        return exit_code(self._running().wait())

    def stop(self, grace: float = GRACE) -> None:
        """Ask the child to end, and end it if it does not in time."""
        process = self._running()
        process.terminate()
        if not self._ended.wait(grace):
            process.kill()
            self._ended.wait()

    def _watch(self) -> None:
        self._running().wait()
        self._ended.set()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the child was not started")
        return self._process


def exit_code(code: int) -> int:
    """As a shell says it: a process that a signal ended has minus that signal's number."""
    return code if code >= 0 else OF_A_SIGNAL - code
