"""Where a command's identity comes from, by its options. Pure, but for ``identity_of``.

| what is said | source |
|---|---|
| ``--url --trust --manifest --code-root --join-token-file`` | ``Attesting``: the command attests |
| ``--folder`` | ``FromFolder``: what ``accredit run`` keeps there |
| ``--socket`` | ``FromDaemon``: what the node daemon gives to this very process |
| ``--manifest`` alone, of ``accredit run`` | ``Launching``: the node daemon starts the command |
| nothing | what the environment names: ``ACCREDIT_FOLDER``, then ``SPIFFE_ENDPOINT_SOCKET`` |

What is written on the command line goes before the environment. Two sources at once, half of one,
and none at all are wrong usage: nobody is to guess which identity a command had.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from accredit_client.base_identity import DEFAULT_PATIENCE
from accredit_client.cli.problems import WrongUsage
from accredit_client.cli.trust_option import trust_of
from accredit_client.files import FOLDER_VARIABLE, PRIVATE, Access
from accredit_client.identity import AgentIdentity
from accredit_client.workload import endpoint
from accredit_client.workload.endpoint import SOCKET_VARIABLE
from accredit_credentials.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Attesting:
    """The command attests by itself, with these; ``trust`` as it was written."""

    url: str
    trust: str
    manifest: Path
    code_root: Path
    join_token_file: Path


@dataclass(frozen=True, slots=True)
class FromFolder:
    """The identity that somebody keeps in a folder."""

    folder: Path


@dataclass(frozen=True, slots=True)
class FromDaemon:
    """The identity of this process from the node daemon: this one, or its default one."""

    socket: Path
    spiffe_id: SpiffeId | None = None


@dataclass(frozen=True, slots=True)
class Launching:
    """The node daemon starts the agent of this manifest, and gives it its identity."""

    socket: Path
    manifest: Path


def attesting_or_launching(
    *,
    url: str | None,
    trust: str | None,
    manifest: Path,
    code_root: Path | None,
    join_token_file: Path | None,
    socket: str | None,
    environment: Mapping[str, str],
) -> Attesting | Launching:
    """The source of ``accredit run``: with nothing but a manifest the daemon starts the command.

    Args, Raises: as ``attesting_or_daemon``.
    """
    nothing_else = all(each is None for each in (url, trust, code_root, join_token_file))
    source = attesting_or_daemon(
        url=url,
        trust=trust,
        manifest=None if nothing_else else manifest,
        code_root=code_root,
        join_token_file=join_token_file,
        socket=socket,
        spiffe_id=None,
        environment=environment,
    )
    return source if isinstance(source, Attesting) else Launching(source.socket, manifest)


def attesting_or_daemon(
    *,
    url: str | None,
    trust: str | None,
    manifest: Path | None,
    code_root: Path | None,
    join_token_file: Path | None,
    socket: str | None,
    spiffe_id: str | None,
    environment: Mapping[str, str],
) -> Attesting | FromDaemon:
    """The source of a command that can attest.

    Args:
        url: of ``--url``.
        trust: of ``--trust``.
        manifest: of ``--manifest``.
        code_root: of ``--code-root``.
        join_token_file: of ``--join-token-file``.
        socket: of ``--socket``: a path, or an address as ``unix:///run/accredit/agent.sock``.
        spiffe_id: of ``--id``.
        environment: the process's.

    Raises:
        WrongUsage: two sources, half of one, or none.
        InvalidEndpoint, InvalidSpiffeId: no socket can be there, or it is no SPIFFE ID.
    """
    options = {
        "--url": url,
        "--trust": trust,
        "--manifest": manifest,
        "--code-root": code_root,
        "--join-token-file": join_token_file,
    }
    given = [name for name, value in options.items() if value is not None]
    missing = [name for name, value in options.items() if value is None]
    if not given:
        return _from_daemon(
            socket,
            spiffe_id,
            environment,
            otherwise=f"or attest here, with {_all_of(missing)}",
        )
    _check_alone(", ".join(given), "the command attest by itself", socket, spiffe_id)
    if (
        url is None
        or trust is None
        or manifest is None
        or code_root is None
        or join_token_file is None
    ):
        raise WrongUsage(
            f"to attest, {_all_of(list(options))} are needed together: "
            f"{_all_of(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            hint="--socket takes the identity from the node daemon, and needs none of them",
        )
    return Attesting(
        url=url,
        trust=trust,
        manifest=manifest,
        code_root=code_root,
        join_token_file=join_token_file,
    )


def folder_or_daemon(
    *,
    folder: Path | None,
    socket: str | None,
    spiffe_id: str | None,
    environment: Mapping[str, str],
) -> FromFolder | FromDaemon:
    """The source of a command that uses an identity which is there; as ``attesting_or_daemon``."""
    if folder is not None:
        _check_alone("--folder", "the identity be a folder's", socket, spiffe_id)
        return FromFolder(folder)
    kept = environment.get(FOLDER_VARIABLE)
    if kept and socket is None:
        _check_alone(FOLDER_VARIABLE, "the identity be a folder's", None, spiffe_id)
        return FromFolder(Path(kept))
    return _from_daemon(
        socket,
        spiffe_id,
        environment,
        otherwise=f"or with --folder a folder's; accredit run sets {FOLDER_VARIABLE}",
    )


def identity_of(
    source: Attesting | FromFolder | FromDaemon,
    *,
    folder: Path | None = None,
    folder_access: Access = PRIVATE,
    revocations: bool = False,
    patience: float = DEFAULT_PATIENCE,
) -> AgentIdentity:
    """The identity, not started yet.

    Args:
        source: where it comes from.
        folder: what an earlier run left there is taken up, by a command that attests.
        folder_access: who may read that folder besides its owner.
        revocations: whether the feed is followed; the daemon ends by itself what it gives.
        patience: seconds that a start waits for who is away.
    """
    match source:
        case Attesting():
            return AgentIdentity(
                issuer_url=source.url,
                trust=trust_of(source.trust),
                manifest_file=source.manifest,
                code_root=source.code_root,
                join_token_file=source.join_token_file,
                folder=folder,
                folder_access=folder_access,
                revocations=revocations,
                patience=patience,
            )
        case FromFolder():
            return AgentIdentity.from_folder(source.folder)
        case FromDaemon():
            return AgentIdentity.from_daemon(
                source.socket, spiffe_id=source.spiffe_id, patience=patience
            )


def _check_alone(options: str, meaning: str, socket: str | None, spiffe_id: str | None) -> None:
    other = "--socket" if socket is not None else "--id" if spiffe_id is not None else None
    if other is not None:
        raise WrongUsage(
            f"{other} asks the node daemon, and {options} would have {meaning}: not both",
            hint=f"leave out {other}, or the others",
        )


def _from_daemon(
    socket: str | None, spiffe_id: str | None, environment: Mapping[str, str], *, otherwise: str
) -> FromDaemon:
    address = socket if socket is not None else environment.get(SOCKET_VARIABLE) or None
    if address is None:
        raise WrongUsage(
            "no identity is named",
            hint=f"take the node daemon's with --socket or {SOCKET_VARIABLE}, {otherwise}",
        )
    named = None if spiffe_id is None else SpiffeId.parse(spiffe_id)
    return FromDaemon(endpoint.path_of(address), named)


def _all_of(names: list[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last
