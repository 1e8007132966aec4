"""A bot's loop: wait until forecasts are published, look at those that can be relied on, decide.

    python bot.py [ROUNDS]

It is sent events and asks nothing in between; a restart of the daemon costs it nothing but the event `lost`.
"""

import sys

from cryptod.client import Client, Forecast

NOT_RELIED_ON = {"late", "outage", "halted", "gaps", "unpegged", "unusual"}


def width(forecast: Forecast) -> float:
    """The central 80 % of the price in 24 hours, as a share of the price now."""
    low, high = forecast.interval(24, 0.8)
    return (high - low) / forecast.close


def main(rounds: int) -> None:
    with Client() as client:
        client.subscribe(["forecasts"])
        for turn in range(rounds):
            if turn:
                client.next_event()
            found = client.get_many()
            sound = [one for one in found.values() if not one.stale and NOT_RELIED_ON.isdisjoint(one.flags)]
            for one in sorted(sound, key=width)[:3]:
                print(f"{one.symbol:<12} {one.close:>14,.6g}  80 % within {width(one):6.2%} in 24 h, P(up) {one.p_up[-1]:.1%}")
            print(f"{len(sound)} of {len(found)} coins, {len(found.refused)} without a forecast", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
