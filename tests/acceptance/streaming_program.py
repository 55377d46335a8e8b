"""A program that streams into a private chat and a group until it is killed: ``python -m`` this module."""

from __future__ import annotations

import asyncio
import itertools

from floodgate.producer.async_client import AsyncClient

USER, GROUP = 77, -1000000000077
NOTE = " (interrupted)"


async def main() -> None:
    options = {"interrupted": NOTE, "interrupted_after": 4}
    async with AsyncClient() as client, client.stream(USER, **options) as one, client.stream(GROUP, **options) as two:  # type: ignore[arg-type]
        for number in itertools.count():
            await one.append(f"{number} ")
            await two.append(f"{number} ")
            print("appended", number)
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
