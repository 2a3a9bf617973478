"""Calls of one turn of the loop, made together: each gets its own answer."""

import asyncio

import pytest

from accredit_issuer.issuance.together import Together


def test_calls_of_one_turn_are_made_together() -> None:
    """Between the calls of one turn nothing else of the loop happens."""
    happened: list[str] = []

    def call(number: int) -> int:
        happened.append(f"call {number}")
        return number * 2

    async def ask(together: Together[int, int], number: int) -> int:
        happened.append(f"ask {number}")
        return await together(number)

    async def main() -> list[int]:
        together = Together(call)
        return await asyncio.gather(*(ask(together, number) for number in range(3)))

    assert asyncio.run(main()) == [0, 2, 4]
    assert happened == ["ask 0", "ask 1", "ask 2", "call 0", "call 1", "call 2"]


def test_an_error_belongs_to_the_one_who_asked() -> None:
    """One that fails fails alone, with its own error."""

    def call(number: int) -> int:
        if number == 1:
            raise LookupError(f"not {number}")
        return number

    async def main() -> list[int | BaseException]:
        together = Together(call)
        return await asyncio.gather(*map(together, range(3)), return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert (first, third) == (0, 2)
    assert isinstance(second, LookupError)


def test_whoever_has_gone_is_left_out() -> None:
    """A call that nobody waits for any more is not made, and the others are."""
    called: list[int] = []

    async def main() -> None:
        together = Together(called.append)
        gone = asyncio.ensure_future(together(0))
        # Between asking and the calls of this turn.
        asyncio.get_running_loop().call_soon(gone.cancel)
        stays = asyncio.ensure_future(together(1))
        await stays
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(main())
    assert called == [1]


def test_one_for_several_loops() -> None:
    """The same one serves one event loop after another."""
    together = Together(str)
    assert asyncio.run(together(1)) == "1"
    assert asyncio.run(together(2)) == "2"
