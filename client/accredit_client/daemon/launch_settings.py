"""What root's file says of an agent that the daemon starts. Pure.

The command is root's word, the whole of it: by which program the measured code runs decides what
runs. So a requester names what it wants started, and gets it only as it stands there; what it may
add are arguments and the values of named variables, where that stands there, too.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from accredit_attestors.errors import AttestationError, shown
from accredit_attestors.strict import Members
from accredit_client.workload.endpoint import SOCKET_VARIABLE

MAX_COMMAND = 64
MAX_TEXT = 4096
MAX_ENVIRONMENT = 64

KEYS = ("command", "more_arguments", "user", "environment", "ends_with_identity")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_USER = re.compile(r"[^\x00-\x20\x7f:/]{1,256}")
# The names that are known; an agent's own way to load code is the agent's.
_LOADS_CODE = re.compile(
    r"LD_.*|GCONV_PATH|GLIBC_TUNABLES|LOCPATH|PYTHON.*|BASH_ENV|ENV|NODE_.*|RUBY(LIB|OPT)|GEM_.*"
    r"|BUNDLE_.*|PERL5?.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH|BASH_FUNC_.*"
    r"|PHPRC|PHP_INI_SCAN_DIR|LUA_.*|OPENSSL_.*|DOTNET_.*|CORECLR_.*|COMPlus_.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """How an agent is started by the daemon.

    Attributes:
        command: the program's absolute path, and its arguments; it starts in the code root.
        more_arguments: whether a requester may add arguments behind it; no by default.
        user: the account that it runs as; empty for the requester's own user, group and groups.
        environment: the variables whose values are the requester's; none by default. The daemon
            adds ``SPIFFE_ENDPOINT_SOCKET``.
        ends_with_identity: whether it is ended when its identity is taken back; yes by default.
    """

    command: tuple[str, ...]
    more_arguments: bool = False
    user: str = ""
    environment: tuple[str, ...] = ()
    ends_with_identity: bool = True

    def starts(self, command: Sequence[str]) -> bool:
        """Whether a command is this one, with more arguments only where they are allowed."""
        if self.more_arguments:
            return tuple(command[: len(self.command)]) == self.command
        return tuple(command) == self.command

    def __str__(self) -> str:
        """The command, for whoever may have it started."""
        return shlex.join(self.command) + (" …" if self.more_arguments else "")


def read_launch(launch: Members) -> LaunchSettings:
    """Read ``[agent.launch]``.

    Raises:
        AttestationError: of the members' class; a value cannot be used.
    """
    return LaunchSettings(
        command=_command(launch),
        more_arguments=launch.flag("more_arguments", default=False),
        user=_user(launch),
        environment=_environment(launch),
        ends_with_identity=launch.flag("ends_with_identity", default=True),
    )


def _command(launch: Members) -> tuple[str, ...]:
    command = launch.texts("command")
    long = any(len(each) > MAX_TEXT or "\0" in each for each in command)
    if not 1 <= len(command) <= MAX_COMMAND or long or not command[0].startswith("/"):
        raise launch.error(
            f"{launch.where}: command must be 1 to {MAX_COMMAND} texts of at most {MAX_TEXT} "
            "characters, and begin with an absolute path"
        )
    return command


def _user(launch: Members) -> str:
    user = launch.text("user", "")
    if "user" in launch.values and (not _USER.fullmatch(user) or user in {"root", "0"}):
        raise launch.error(f"{launch.where}: user must be an account that is not root's")
    return user


def _environment(launch: Members) -> tuple[str, ...]:
    names = launch.texts("environment", ())
    if len(names) > MAX_ENVIRONMENT or len(set(names)) != len(names):
        raise launch.error(
            f"{launch.where}: environment must be at most {MAX_ENVIRONMENT} different names"
        )
    for name in names:
        check_variable(name, where=launch.where, error=launch.error)
    return names


def check_variable(name: str, *, where: str, error: type[AttestationError]) -> None:
    """Check that a requester may choose the value of a variable.

    Raises:
        AttestationError: of the given class; no name, or one by which loaders and interpreters are
            made to run code that nobody measured.
    """
    if not _VARIABLE.fullmatch(name) or name == SOCKET_VARIABLE:
        raise error(f"{where}: environment has {shown(name)}, which cannot be a requester's")
    if _LOADS_CODE.fullmatch(name):
        raise error(f"{where}: environment has {name}, by which code is run that nobody measured")


def launched_selectors(manifest: str, command: Sequence[str]) -> frozenset[str]:
    """What is said of a process that the daemon started, and of those below it.

    Args:
        manifest: the digest of the manifest, ``sha256:<hex>``.
        command: as it stands in the settings.
    """
    text = json.dumps(list(command), ensure_ascii=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return frozenset({f"launched:manifest:{manifest}", f"launched:command:sha256:{digest}"})
