"""The SHA-256 of programs that run, read once for each file and not again while it is unchanged."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from accredit_attestors.errors import InvalidTree
from accredit_attestors.tree import hash_regular_file
from accredit_attestors.tree_memory import State, settled, state_of
from accredit_client.errors import CallerRefused

MAX_EXECUTABLE_BYTES = 1024**3
"""Of a program that is read; a larger one has no ``unix:sha256:`` selector."""
MAX_REMEMBERED = 1024
"""Programs whose SHA-256 is kept."""


class Executables:
    """The SHA-256 of programs by their inode; for several threads.

    Args:
        clock: nanoseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[State, str] = OrderedDict()

    def sha256(self, descriptor: int) -> str | None:
        """The SHA-256 (hex) of an open program; None for one beyond ``MAX_EXECUTABLE_BYTES``.

        Raises:
            CallerRefused: it cannot be read, or changes meanwhile.
        """
        read_at = self._clock()
        status = os.fstat(descriptor)
        if status.st_size > MAX_EXECUTABLE_BYTES:
            return None
        key = state_of(status)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        try:
            read, found = hash_regular_file(descriptor, "the program", MAX_EXECUTABLE_BYTES)
        except (InvalidTree, OSError) as error:
            raise CallerRefused(f"the program cannot be read: {error}") from error
        if settled(found, read_at) and state_of(found) == key:
            with self._lock:
                self._known[key] = read
                while len(self._known) > MAX_REMEMBERED:
                    self._known.popitem(last=False)
        return read


EXECUTABLES = Executables()
"""One for all callers of this daemon: most run the same few interpreters."""
