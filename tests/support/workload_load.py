"""Many callers of the daemon's socket, in a process of their own; says as JSON what they saw.

    python workload_load.py connects SOCKET COUNT    # all at once, each waits for its first SVID
    python workload_load.py streams SOCKET COUNT     # then waits for one more message on each
    python workload_load.py jwt SOCKET COUNT         # questions on one connection, 16 at a time

Moments are of the monotonic clock, which processes of one machine share.
"""

import asyncio
import json
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


async def connects(path: str, count: int) -> None:
    """Everybody connects in the same moment."""
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


async def begun(stream: Any) -> None:
    """Ask, and wait for the first message."""
    await stream.send_message(pb.X509SVIDRequest(), end=True)
    message = await stream.recv_message()
    assert message is not None
    assert message.svids


async def streams(path: str, count: int) -> None:
    """Everybody listens, and the next message is the rotation."""
    ready = asyncio.Semaphore(0)

    async def one() -> float:
        async with opened(Channel(path=path)) as stream:
            await begun(stream)
            ready.release()
            assert await stream.recv_message() is not None
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
    began = time.monotonic()
    await asyncio.gather(*(line() for _ in range(AT_A_TIME)))
    say(seconds=time.monotonic() - began, answered=count // AT_A_TIME * AT_A_TIME)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    command = {"connects": connects, "streams": streams, "jwt": jwt}[sys.argv[1]]
    asyncio.run(command(sys.argv[2], int(sys.argv[3])))
