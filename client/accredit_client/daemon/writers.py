"""Whether the agent itself could write a file: a pure decision over what the kernel says of both.

Ids and modes decide, not what a mount allows: a file that is the agent's own counts as writable on
a read-only mount too, since the same file may be mounted elsewhere. It leans to *yes*: an owner
may give itself any mode; a group that may write counts, and so does everyone.

Root is not decided by modes. Whoever runs as root, or holds a capability that is more than
harmless, could write anything, so that no measure of files says what runs.
"""

import os
import stat
import struct
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from accredit_client.daemon.process import Status

# linux/capability.h: what cannot write a file, change its owner, load code or become root.
_CAP_NET_BIND_SERVICE = 10
_CAP_NET_BROADCAST = 11
_CAP_NET_RAW = 13
_CAP_IPC_LOCK = 14
_CAP_SYS_NICE = 23
_CAP_SYS_RESOURCE = 24
_CAP_AUDIT_WRITE = 29
_CAP_WAKE_ALARM = 35
_CAP_BLOCK_SUSPEND = 36
_HARMLESS = sum(
    1 << each
    for each in (
        _CAP_NET_BIND_SERVICE,
        _CAP_NET_BROADCAST,
        _CAP_NET_RAW,
        _CAP_IPC_LOCK,
        _CAP_SYS_NICE,
        _CAP_SYS_RESOURCE,
        _CAP_AUDIT_WRITE,
        _CAP_WAKE_ALARM,
        _CAP_BLOCK_SUSPEND,
    )
)

# linux/posix_acl_xattr.h
_ACL_VERSION = 2
_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER, _ACL_GROUP = 0x02, 0x08
_ACL_WRITE = 0x02


@dataclass(frozen=True, slots=True)
class Writers:
    """The ids that a process has, or could take up by itself.

    Attributes:
        uids: real, effective, saved and filesystem user ids.
        gids: the same of groups, and supplementary ones.
    """

    uids: frozenset[int]
    gids: frozenset[int]

    @classmethod
    def of(cls, status: Status, more_groups: AbstractSet[int] = frozenset()) -> "Writers":
        """Those of a process, and the groups that its user is a member of."""
        return cls(frozenset(status.uids), frozenset(status.gids) | status.groups | more_groups)

    def with_(self, others: "Writers") -> "Writers":
        """These and others."""
        return Writers(self.uids | others.uids, self.gids | others.gids)

    def through(self, file: os.stat_result, acl: bytes | None) -> str | None:
        """By what they could write a file or directory, in words; None if they could not.

        Args:
            file: its mode, owner and group.
            acl: its ``system.posix_acl_access``, if it has one; it needs to be looked at only
                where ``may_have_more`` says so.
        """
        if file.st_uid in self.uids:
            return f"it belongs to uid {file.st_uid}"
        if file.st_mode & stat.S_IWOTH:
            return "everyone may write it"
        if file.st_mode & stat.S_IWGRP and file.st_gid in self.gids:
            return f"group {file.st_gid} may write it"
        if acl is not None and may_have_more(file.st_mode) and self._in(acl):
            return "an access control list allows it"
        return None

    def _in(self, acl: bytes) -> bool:
        if len(acl) < _ACL_HEADER.size or (len(acl) - _ACL_HEADER.size) % _ACL_ENTRY.size:
            return True
        if _ACL_HEADER.unpack_from(acl)[0] != _ACL_VERSION:
            return True  # nobody knows what it grants
        for tag, permission, number in _ACL_ENTRY.iter_unpack(acl[_ACL_HEADER.size :]):
            named = {_ACL_USER: self.uids, _ACL_GROUP: self.gids}.get(tag, frozenset())
            if permission & _ACL_WRITE and number in named:
                return True
        return False


NOBODY = Writers(frozenset(), frozenset())


def may_have_more(mode: int) -> bool:
    """Whether an access control list could allow writing: the group's bits are its mask."""
    return bool(mode & stat.S_IWGRP)


def almighty(status: Status) -> str | None:
    """By what a process could write anything, in words; None for an ordinary one."""
    if 0 in status.uids:
        return "it runs as root"
    if status.capabilities & ~_HARMLESS:
        return f"it has capabilities {status.capabilities & ~_HARMLESS:#x}"
    return None
