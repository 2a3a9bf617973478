"""Many callers of the daemon's socket, in a process of their own; says as JSON what they saw.

    python workload_load.py connects SOCKET COUNT    # all at once, each waits for its first SVID
    python workload_load.py streams SOCKET COUNT     # each waits until it is told another state
    python workload_load.py jwt SOCKET COUNT         # questions on one connection, 16 at a time

It says when it is ready, and begins what is measured at a line of standard input. With a fourth
argument it becomes that user first. Moments are of the monotonic clock, which processes of one
machine share.
"""

import asyncio
import json
import os
import resource
import sys
import time
from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod

from accredit_client.daemon.proto import workload_pb2 as pb

HEADER = [("workload.spiffe.io", "true")]
AT_A_TIME = 16


def say(**found: Any) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def told() -> None:
    """Wait for a line; meanwhile nothing else is to be done."""
    assert sys.stdin.readline()


async def connects(path: str, count: int) -> None:
    """Everybody connects in the same moment."""
    say(ready=0)
    told()
    began = time.monotonic()
    results = await asyncio.gather(
        *(first(Channel(path=path)) for _ in range(count)), return_exceptions=True
    )
    failures = [repr(each) for each in results if isinstance(each, BaseException)]
    moments = [each for each in results if isinstance(each, float)]
    say(
        began=began,
        answered=len(moments),
        last=max(moments, default=0.0),
        failures=failures[:3],
    )


async def first(channel: Channel) -> float:
    """The moment of the first SVID."""
    async with opened(channel) as stream:
        await begun(stream)
        moment = time.monotonic()
        await stream.cancel()  # the end of the context would wait for that of the stream
        return moment


def opened(channel: Channel) -> Any:
    """A call that is not begun."""
    call = UnaryStreamMethod(
        channel, "/SpiffeWorkloadAPI/FetchX509SVID", pb.X509SVIDRequest, pb.X509SVIDResponse
    )
    return call.open(metadata=HEADER)


async def begun(stream: Any) -> Any:
    """Ask, and wait for the first message: the state that everybody starts from."""
    await stream.send_message(pb.X509SVIDRequest(), end=True)
    message = await stream.recv_message()
    assert message is not None
    assert message.svids
    return message


async def streams(path: str, count: int) -> None:
    """Everybody listens; a message with another SVID or bundle is the rotation, a CRL is not."""
    ready = asyncio.Semaphore(0)

    async def one() -> float:
        async with opened(Channel(path=path)) as stream:
            before = await begun(stream)
            ready.release()
            while (message := await stream.recv_message()) is not None:
                if list(message.svids) != list(before.svids):
                    break
            assert message is not None
            moment = time.monotonic()
            await stream.cancel()
            return moment

    listening = [asyncio.ensure_future(one()) for _ in range(count)]
    for _ in range(count):
        await ready.acquire()
    say(ready=count)
    moments = await asyncio.gather(*listening)
    say(last=max(moments))


async def jwt(path: str, count: int) -> None:
    """Questions, one after the other in several lines."""
    call = UnaryUnaryMethod(
        Channel(path=path),
        "/SpiffeWorkloadAPI/FetchJWTSVID",
        pb.JWTSVIDRequest,
        pb.JWTSVIDResponse,
    )
    request = pb.JWTSVIDRequest(audience=["https://tickets"])

    async def line() -> None:
        for _ in range(count // AT_A_TIME):
            assert (await call(request, metadata=HEADER)).svids

    await line()
    say(ready=1)
    told()
    began = time.monotonic()
    await asyncio.gather(*(line() for _ in range(AT_A_TIME)))
    ended = time.monotonic()
    say(began=began, last=ended, answered=count // AT_A_TIME * AT_A_TIME)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    command = {"connects": connects, "streams": streams, "jwt": jwt}[sys.argv[1]]
    if sys.argv[4:]:
        user = int(sys.argv[4])
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    asyncio.run(command(sys.argv[2], int(sys.argv[3])))
