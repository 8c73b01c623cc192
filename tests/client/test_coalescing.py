"""What many coroutines ask at the same time is asked once."""

import asyncio

import pytest

from beam_serving.client.coalescing import Coalesced


class Doubling:
    """Doubles numbers, once it may go on; notes what it was asked. Refuses 13."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may_go_on = asyncio.Event()

    async def __call__(self, numbers: list[int]) -> list[int | ValueError]:
        self.asked.append(numbers)
        await self.may_go_on.wait()
        if 99 in numbers:
            raise KeyError(99)
        return [ValueError("13") if number == 13 else 2 * number for number in numbers]


async def test_what_comes_meanwhile_is_asked_together() -> None:
    doubling = Doubling()
    gathered = Coalesced(doubling)
    first = gathered.submit(1)
    await asyncio.sleep(0)
    others = [gathered.submit(number) for number in (2, 3)]
    doubling.may_go_on.set()
    assert await asyncio.gather(first, *others) == [2, 4, 6]
    assert doubling.asked == [[1], [2, 3]]


async def test_an_error_goes_to_who_asked_for_it() -> None:
    doubling = Doubling()
    doubling.may_go_on.set()
    gathered = Coalesced(doubling)
    bad, good = gathered.submit(13), gathered.submit(4)
    assert await good == 8
    with pytest.raises(ValueError, match="13"):
        await bad
    for lost in [gathered.submit(99), gathered.submit(5)]:
        with pytest.raises(KeyError):
            await lost
    assert await gathered.submit(6) == 12


async def test_who_gave_up_does_not_disturb_the_others() -> None:
    doubling = Doubling()
    gathered = Coalesced(doubling)
    given_up, patient = gathered.submit(1), gathered.submit(2)
    await asyncio.sleep(0)
    given_up.cancel()
    doubling.may_go_on.set()
    assert await patient == 4
