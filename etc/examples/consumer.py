"""An asyncio consumer: every new forecast of every coin as it is made, while other tasks ask what they want on the same connection.

python consumer.py [HOW_MANY]
"""

import asyncio
import sys

from cryptod.client import AsyncClient, read_forecast


async def heartbeat(client: AsyncClient) -> None:
    """Some other work beside it."""
    while True:
        health = await client.health()
        print(f"health: {health['severity']}", flush=True)
        await asyncio.sleep(60)


async def main(count: int) -> None:
    async with AsyncClient() as client:
        await client.subscribe(["coins"])
        other = asyncio.create_task(heartbeat(client))
        async for event in client.events():
            if event.topic == "lost":
                print(f"missed {event.payload['count'] or 'some'} events: asking for all", flush=True)
                await client.get_many()
                continue
            forecast = read_forecast(event.payload)
            print(f"{forecast.symbol} {forecast.price(24):.6g} in 24 h, {forecast.volatility[-1]:.2%} volatility", flush=True)
            count -= 1
            if count == 0:
                break
        other.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else -1))
