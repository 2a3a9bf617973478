"""The daemon's socket from a workload's side: streams that are followed, and calls.

Everything runs in one thread with an event loop of its own, for threaded and asyncio identities
alike. ``News`` is what the streams have said by now, replaced as a whole. A stream that ends,
however it ends, is opened again after a pause that grows to a minute, for as long as it takes; but
nobody repeats a request that was InvalidArgument or Unimplemented (Workload Endpoint §6).
PermissionDenied takes away what the stream gave, and is asked again: the daemon may serve later.
"""

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from accredit_client import renewal
from accredit_client.answers import TaskTokenAnswer
from accredit_client.calls import TaskTokenRequest
from accredit_client.daemon.proto import accredit_workload_pb2 as own
from accredit_client.daemon.proto import workload_pb2 as pb
from accredit_client.effects import Clock, Draw
from accredit_client.errors import (
    Closed,
    InvalidAnswer,
    IssuerRefused,
    IssuerUnreachable,
)
from accredit_client.workload.messages import X509State, jwt_state, x509_state
from accredit_credentials.bundle import TrustBundle
from accredit_credentials.spiffe_id import SpiffeId, TrustDomain

A = TypeVar("A")

HEADER = (("workload.spiffe.io", "true"),)
API = "/SpiffeWorkloadAPI/"
OWN = "/accredit.workload.v1.AccreditWorkload/"
FIRST_MESSAGE = 30.0  # seconds: a stream has its first message at once, or the daemon hangs
CALL = 20.0  # seconds for an answer; the daemon may have to ask the issuer

Pause = Callable[[float], Awaitable[None]]
"""Waits so many seconds."""


class Outcome(Enum):
    """What the end of a stream means for the next try."""

    AGAIN = "again"
    WITHDRAWN = "withdrawn"  # there is no identity: what was given is given no more
    NEVER = "never"  # the same request would fail the same way


def outcome_of(error: Exception) -> Outcome:
    """What the end of a stream means."""
    status = error.status if isinstance(error, GRPCError) else None
    if status is Status.PERMISSION_DENIED:
        return Outcome.WITHDRAWN
    if status in {Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED}:
        return Outcome.NEVER
    return Outcome.AGAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the streams have said by now.

    Attributes:
        svids: of the newest message; None before the first, and where it was withdrawn.
        withdrawn: why there is no identity (any more); None otherwise.
        keys: JWT authorities by trust domain; None before anything was heard.
        error: why the stream of SVIDs was lost last; None while it stands.
        failures: how often in a row.
        lost_at: when it was lost; None while it stands.
    """

    svids: X509State | None = None
    withdrawn: str | None = None
    keys: Mapping[TrustDomain, TrustBundle] | None = None
    error: Exception | None = None
    failures: int = 0
    lost_at: datetime | None = None

    @property
    def told(self) -> bool:
        """Whether both streams have come to something, be it good or bad."""
        known = self.svids is not None or self.withdrawn is not None
        return self.error is not None or (known and self.keys is not None)


class Line:
    """One connection to the daemon, made again whenever it is lost.

    Args:
        path: of the socket.
        spiffe_id: which identity is meant; None is the default one.
        clock: the time.
        draw: for the jitter.
        pause: how to wait between tries.
    """

    def __init__(
        self, path: Path, *, spiffe_id: SpiffeId | None, clock: Clock, draw: Draw, pause: Pause
    ) -> None:
        self.news = News()
        self._path = path
        self._spiffe_id = spiffe_id
        self._clock = clock
        self._draw = draw
        self._pause = pause
        self._changed = threading.Condition()
        self._told: Callable[[], None] = _nobody
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process: int | None = None

    def start(self, told: Callable[[], None]) -> None:
        """Begin to follow the streams; ``told`` is called from the thread after each news."""
        self.news = News()
        self._told = told
        self._process = os.getpid()
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name="accredit-daemon", daemon=True)
        self._thread.start()
        self._running.wait()

    def close(self) -> None:
        """End the thread, with its streams and calls."""
        if self._loop is None or os.getpid() != self._process:
            return
        self._told = _nobody
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def wait_told(self, timeout: float) -> None:
        """Wait until both streams have come to something."""
        with self._changed:
            self._changed.wait_for(lambda: self.news.told, timeout)

    def submit(self, work: Coroutine[Any, Any, A]) -> "concurrent.futures.Future[A]":
        """Run something in the thread's event loop.

        Raises:
            Closed: there is none any more.
        """
        if self._loop is None or self._loop.is_closed():
            work.close()
            raise Closed("the connection to the node daemon was closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def jwt_svid(self, audience: tuple[str, ...], spiffe_id: SpiffeId) -> str:
        """A JWT-SVID of one identity.

        Raises:
            IssuerUnreachable, IssuerRefused, InvalidAnswer: there is none.
        """
        request = pb.JWTSVIDRequest(audience=audience, spiffe_id=str(spiffe_id))
        answer = await self._ask(API + "FetchJWTSVID", request, pb.JWTSVIDResponse)
        for each in answer.svids:
            if each.spiffe_id == str(spiffe_id):
                return str(each.svid)
        raise InvalidAnswer(f"the daemon's answer has no JWT-SVID of {spiffe_id}")

    async def task_token(self, wanted: TaskTokenRequest, spiffe_id: SpiffeId) -> TaskTokenAnswer:
        """A task token; raises as ``jwt_svid``."""
        request = own.FetchTaskTokenRequest(
            resource=wanted.resource,
            actions=wanted.actions,
            purpose=wanted.purpose,
            task_id=wanted.task_id or "",
            parent=wanted.parent or "",
            principal=wanted.principal or "",
            binding=wanted.binding or "",
            jkt=wanted.jkt or "",
            spiffe_id=str(spiffe_id),
        )
        answer = await self._ask(OWN + "FetchTaskToken", request, own.FetchTaskTokenResponse)
        expires_at = _moment(answer.expires_at)
        return TaskTokenAnswer(
            access_token=answer.access_token,
            token_type=answer.token_type,
            expires_in=max(0, int((expires_at - self._clock()).total_seconds())),
            expires_at=expires_at,
            scope=answer.scope,
            audience=answer.audience,
            jti=answer.jti,
            task_id=answer.task_id,
        )

    async def _ask(self, method: str, request: Any, reply: Any) -> Any:
        call = UnaryUnaryMethod(self._channel, method, type(request), reply)
        try:
            return await call(request, timeout=CALL, metadata=list(HEADER))
        except GRPCError as error:
            raise _refusal(error) from error
        except Exception as error:
            raise _away(self._path, error) from error

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._channel = Channel(path=str(self._path))
        self._loop = asyncio.get_running_loop()
        self._running.set()
        streams = [
            asyncio.create_task(
                self._follow(
                    UnaryStreamMethod(
                        self._channel,
                        API + "FetchX509SVID",
                        pb.X509SVIDRequest,
                        pb.X509SVIDResponse,
                    ),
                    pb.X509SVIDRequest(),
                    self._took_svids,
                    self._lost_svids,
                )
            ),
            asyncio.create_task(
                self._follow(
                    UnaryStreamMethod(
                        self._channel,
                        API + "FetchJWTBundles",
                        pb.JWTBundlesRequest,
                        pb.JWTBundlesResponse,
                    ),
                    pb.JWTBundlesRequest(),
                    self._took_keys,
                    self._lost_keys,
                )
            ),
        ]
        await self._stop.wait()
        for each in streams:
            each.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
        self._channel.close()

    async def _follow(
        self,
        method: "UnaryStreamMethod[Any, Any]",
        request: Any,
        took: Callable[[Any], None],
        lost: Callable[[Exception, int], None],
    ) -> None:
        failures = 0

        def heard(message: Any) -> None:
            nonlocal failures
            took(message)
            failures = 0

        while True:
            try:
                await _read(method, request, heard)
            except Exception as error:  # noqa: BLE001 (a dead task would be noticed too late)
                failures += 1
                lost(error, failures)
                if outcome_of(error) is Outcome.NEVER:
                    return
                await self._pause(renewal.pause_after(failures, draw=self._draw))

    def _took_svids(self, message: Any) -> None:
        try:
            state = x509_state(message, spiffe_id=self._spiffe_id, now=self._clock())
        except InvalidAnswer as error:
            # It is the whole state nevertheless: what was said before holds no more (§4.4).
            self._tell(svids=None, withdrawn=str(error))
            raise
        withdrawn = None
        if state is None:
            withdrawn = f"the daemon serves no SVID of {self._spiffe_id or 'this process'} any more"
        self._tell(svids=state, withdrawn=withdrawn, error=None, failures=0, lost_at=None)

    def _lost_svids(self, error: Exception, failures: int) -> None:
        outcome = outcome_of(error)
        told: dict[str, Any] = {
            "failures": failures,
            "lost_at": self.news.lost_at or self._clock(),
            "error": error if isinstance(error, InvalidAnswer) else _away(self._path, error),
        }
        if outcome is not Outcome.AGAIN and isinstance(error, GRPCError):
            told["error"] = _refusal(error)
            if outcome is Outcome.WITHDRAWN:
                told |= {"svids": None, "withdrawn": error.message or "permission denied"}
        self._tell(**told)

    def _took_keys(self, message: Any) -> None:
        self._tell(keys=jwt_state(message.bundles))

    def _lost_keys(self, error: Exception, _failures: int) -> None:
        if self.news.keys is None or outcome_of(error) is not Outcome.AGAIN:
            self._tell(keys={})

    def _tell(self, **changes: Any) -> None:
        with self._changed:
            self.news = replace(self.news, **changes)
            self._changed.notify_all()
        self._told()


async def _read(
    method: "UnaryStreamMethod[Any, Any]", request: Any, heard: Callable[[Any], None]
) -> NoReturn:
    """Read one stream until it ends, which it should not."""
    async with (
        asyncio.timeout(FIRST_MESSAGE) as limit,
        method.open(metadata=list(HEADER)) as stream,
    ):
        await stream.send_message(request, end=True)
        while (message := await stream.recv_message()) is not None:
            limit.reschedule(None)
            heard(message)
        await stream.recv_trailing_metadata()
    raise IssuerUnreachable("the node daemon ended the stream")


def _refusal(error: GRPCError) -> Exception:
    said = error.message or error.status.name
    match error.status:
        case Status.PERMISSION_DENIED:
            return IssuerRefused("forbidden", said, 403)
        case Status.INVALID_ARGUMENT:
            return IssuerRefused("malformed", said, 400)
        case Status.UNIMPLEMENTED:
            return IssuerRefused("not-found", said, 404)
        case _:
            return IssuerUnreachable(f"the node daemon cannot now ({error.status.name}): {said}")


def _away(path: Path, error: Exception) -> IssuerUnreachable:
    if isinstance(error, GRPCError):
        return IssuerUnreachable(str(_refusal(error)))
    if isinstance(error, IssuerUnreachable):
        return error
    why = str(error) or type(error).__name__
    return IssuerUnreachable(f"the node daemon at {path} does not answer: {why}")


def _moment(stamp: Any) -> datetime:
    epoch = datetime.fromtimestamp(0, tz=UTC)
    return epoch + timedelta(seconds=stamp.seconds)


def _nobody() -> None:
    pass
