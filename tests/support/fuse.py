"""A filesystem that a test serves (FUSE, protocol 7.26): one file, and answers when the test says.

Only what running and reading that file takes. Nothing is cached by the kernel, so that each
question comes to the test, which may let it wait.
"""

import ctypes
import errno
import os
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_fuse = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
)

NAME = b"program"
_ROOT, _FILE = 1, 2
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 15, 18, 25, 26
_OPENDIR, _RELEASEDIR, _ACCESS, _INTERRUPT, _BATCH_FORGET = 27, 29, 34, 36, 42
_HEADER = struct.Struct("<IIQQIIIHH")
_UNANSWERED = {_FORGET, _INTERRUPT, _BATCH_FORGET}
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class Served:
    """The filesystem."""

    def __init__(self, point: Path, content: bytes) -> None:
        self.point, self.content = point, content
        self.program = point / NAME.decode()
        self.asked: list[int] = []
        self._begun = threading.Event()
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _LIBC.mount(b"test", os.fsencode(point), b"fuse", 0, options.encode()):
            os.close(self._device)
            raise OSError(ctypes.get_errno(), "cannot mount")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._begun.wait(10)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Answer nothing meanwhile; what root asks is noted in ``asked``."""
        self.asked.clear()
        self._may_answer.clear()
        try:
            yield
        finally:
            self._may_answer.set()

    def end(self) -> None:
        """Go."""
        _LIBC.umount2(os.fsencode(self.point), _MNT_DETACH)
        self._thread.join(10)
        os.close(self._device)

    def _serve(self) -> None:
        while True:
            try:
                asked = os.read(self._device, 1024 * 1024 + 4096)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return  # it is unmounted
                continue
            _, what, unique, node, uid, *_ = _HEADER.unpack_from(asked)
            if not uid:
                self.asked.append(what)
            self._may_answer.wait()
            if what not in _UNANSWERED:
                self._answer(unique, what, node, asked[_HEADER.size :])
            self._begun.set()

    def _answer(self, unique: int, what: int, node: int, body: bytes) -> None:
        said, failed = b"", 0
        if what == _INIT:
            said = struct.pack("<IIIIHHIII32x", 7, 26, 0, 0, 1, 1, 4096, 0, 0)
        elif what == _LOOKUP and body.rstrip(b"\0") == NAME:
            said = struct.pack("<QQQQII", _FILE, 0, 0, 0, 0, 0) + self._attributes(_FILE)
        elif what == _GETATTR:
            said = struct.pack("<QII", 0, 0, 0) + self._attributes(node)
        elif what in {_OPEN, _OPENDIR}:
            said = struct.pack("<QII", 0, 0, 0)
        elif what == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            said = self.content[offset : offset + size]
        elif what not in {_RELEASE, _RELEASEDIR, _FLUSH, _ACCESS}:
            failed = errno.ENOENT if what == _LOOKUP else errno.ENOSYS
        head = struct.pack("<IiQ", 16 + len(said), -failed, unique)
        try:
            os.write(self._device, head + said)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENODEV}:  # who asked is gone, or all of it
                raise

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o755
        size = len(self.content) if node == _FILE else 0
        numbers = (node, size, (size + 511) // 512, 1, 1, 1)
        return struct.pack("<QQQQQQIIIIIIIIII", *numbers, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


@contextmanager
def served(content: bytes) -> Iterator[Served]:
    """One file on a filesystem of the test's own."""
    with tempfile.TemporaryDirectory(prefix="accredit-fuse-") as name:
        point = Path(name)
        point.chmod(0o755)
        filesystem = Served(point, content)
        try:
            yield filesystem
        finally:
            filesystem.end()
