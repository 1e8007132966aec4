"""How users share the control socket: places, slices, waiting bytes, unsent bytes, lanes; without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cryptod.daemon import crowd
from cryptod.daemon.crowd import RESERVED, USER_KEPT, USER_TASKS, USER_UNSENT, USER_WORK, Crowd, User
from cryptod.daemon.lane import Lane
from cryptod.daemon.listening import Peer
from cryptod.daemon.loop import PART, DirectSelector
from cryptod.daemon.nearest import Nearest
from cryptod.errors import RequestError

ROOT, GREEDY, MODEST, THIRD = 0, 1001, 1002, 1003


class Client:
    """A member of the crowd that asks for ever."""

    def __init__(self, house: House, uid: int) -> None:
        self.house, self.peer = house, Peer(1, uid, uid)
        self.asked: bool | None = False
        self.idle = True
        self.unsent = self.kept = 0
        self.gone = False
        self.user: User[Any] = house.crowd.user(uid)
        self.refusal = house.crowd.admit(self, self.user, uid == ROOT)

    def serve(self, until: float) -> bool:
        self.house.served.append(self.peer.uid)
        return True

    def let_in(self) -> None:
        self.house.let_in.append(self)

    def abort(self) -> None:
        self.gone = True
        self.house.crowd.keep(self.user, -self.kept)
        self.kept = self.unsent = 0
        self.house.crowd.leave(self, self.user)


class House:
    def __init__(self, places: int = 2048) -> None:
        self.counts: Counter[str] = Counter()
        self.crowd: Crowd[Any] = Crowd(places, lambda peer: peer.uid == ROOT, self.counts)
        self.served: list[int] = []
        self.let_in: list[Client] = []

    def join(self, uid: int, count: int) -> list[Client]:
        return [Client(self, uid) for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------------- places


def test_two_users_who_take_all_places_leave_sixteen_to_root() -> None:
    house = House()
    for client in house.join(GREEDY, 1100) + house.join(MODEST, 1100):
        client.idle = False  # they all wait for something
    assert len(house.crowd.members) == 2048 - RESERVED
    assert [client.refusal for client in house.join(ROOT, RESERVED)] == [""] * RESERVED


def test_where_all_places_are_taken_the_silent_one_of_the_greediest_user_that_was_there_first_gives_way() -> None:
    house = House(80)
    first = house.join(GREEDY, 40)
    house.join(MODEST, 30)
    first[0].asked = True
    first[1].idle = False
    newcomer = Client(house, THIRD)
    assert newcomer.refusal == ""
    assert [client.gone for client in first[:4]] == [False, False, True, False]
    assert house.counts["dropped_clients"] == 1
    assert len(house.crowd.members) == 70


def test_one_that_asked_since_the_last_look_gives_way_after_those_that_did_not() -> None:
    house = House(80)
    first = house.join(GREEDY, 40)
    house.join(MODEST, 30)
    for client in first:
        client.asked = True
    Client(house, THIRD)
    gone = [client for client in first if client.gone]
    assert len(gone) == 1
    lively = next(client for client in first if not client.gone)
    lively.asked = True
    for _ in range(20):
        assert Client(house, THIRD).refusal == ""
    assert not lively.gone


def test_nobody_gives_way_to_a_user_who_has_as_many_places() -> None:
    house = House(80)
    house.join(GREEDY, 35)
    house.join(MODEST, 35)
    assert "70 clients are connected" in Client(house, GREEDY).refusal
    assert not house.counts["dropped_clients"]


# ---------------------------------------------------------------------------------------------------- time


async def test_users_take_turns_however_many_connections_one_of_them_has() -> None:
    house = House()
    for client in house.join(GREEDY, 500) + house.join(MODEST, 1):
        house.crowd.queue(client, client.user)
    await until(lambda: len(house.served) > 200)
    assert 0.4 < house.served.count(MODEST) / len(house.served) < 0.6


async def test_requests_at_work_go_on_in_turns_too() -> None:
    house = House()
    went: list[int] = []
    clients = house.join(GREEDY, 100) + house.join(MODEST, 1)

    async def work(client: Client) -> None:
        while len(went) < 200:
            await house.crowd.turn(client.user)
            went.append(client.peer.uid)

    tasks = [asyncio.create_task(work(client)) for client in clients]
    await until(lambda: len(went) >= 200)
    assert 0.4 < went.count(MODEST) / len(went) < 0.6
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_requests_at_work_are_bounded_for_a_user_and_for_all_but_everyone_may_have_one() -> None:
    house = House()
    [greedy], [modest], [third], [root] = (house.join(uid, 1) for uid in (GREEDY, MODEST, THIRD, ROOT))
    for _ in range(USER_TASKS):
        assert house.crowd.may_start(greedy.user, greedy)
        house.crowd.began(greedy.user, 10)
    assert not house.crowd.may_start(greedy.user, greedy)
    house.crowd.began(modest.user, USER_WORK)
    assert not house.crowd.may_start(modest.user, modest)
    house.crowd.began(third.user, crowd.ALL_WORK)
    newcomer = Client(house, 1004)
    assert house.crowd.may_start(newcomer.user, newcomer)
    house.crowd.began(newcomer.user, 10)
    assert not house.crowd.may_start(newcomer.user, newcomer)
    house.crowd.began(root.user, 10)
    assert house.crowd.may_start(root.user, root), "who may change things is not held to what all have together"


async def test_who_waits_because_too_much_is_at_work_is_served_when_it_ends() -> None:
    house = House()
    [client] = house.join(GREEDY, 1)
    house.crowd.began(client.user, USER_WORK)
    house.crowd.queue(client, client.user)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not house.served
    house.crowd.ended(client.user, USER_WORK)
    await until(lambda: bool(house.served))


async def test_a_client_that_does_not_read_does_not_hold_up_its_users_others_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "STALLED_S", 0.05)
    house = House()
    sloth, other = house.join(GREEDY, 2)
    house.crowd.began(sloth.user, USER_WORK)
    house.crowd.stall(sloth, sloth.user)
    await asyncio.sleep(0.1)
    assert not sloth.gone, "nobody waits for it"
    house.crowd.queue(other, other.user)
    await until(lambda: sloth.gone)
    house.crowd.ended(other.user, USER_WORK)
    await until(lambda: bool(house.served))


# ---------------------------------------------------------------------------------------------------- memory


async def test_of_a_user_of_whom_much_waits_nothing_more_is_read_until_less_waits() -> None:
    house = House()
    client, held = house.join(GREEDY, 2)
    client.user.waiting.append(client)
    house.crowd.keep(client.user, USER_KEPT)
    assert house.crowd.full(client.user)
    [modest] = house.join(MODEST, 1)
    assert not house.crowd.full(modest.user)
    house.crowd.hold(held, held.user)
    await asyncio.sleep(0)
    assert not house.let_in
    house.crowd.keep(client.user, -10)
    await until(lambda: house.let_in == [held])


def test_where_all_that_waits_was_said_by_halves_the_largest_half_goes() -> None:
    house = House()
    halves = house.join(GREEDY, 20)
    for client in halves:
        client.kept = USER_KEPT // 20 + 1 + (client is halves[7])
        house.crowd.user(GREEDY).kept += client.kept
    held = Client(house, GREEDY)

    async def hold() -> None:
        house.crowd.hold(held, held.user)

    asyncio.run(hold())
    assert [client.gone for client in halves] == [client is halves[7] for client in halves]


def test_unsent_bytes_are_bounded_for_a_user_and_one_answer_may_be_larger() -> None:
    house = House()
    [alone] = house.join(MODEST, 1)
    alone.unsent = 3 * USER_UNSENT
    house.crowd.owes(alone, alone.user, alone.unsent)
    assert not alone.gone, "one answer may be as large as it is"
    sloths = house.join(GREEDY, 100)
    for client in sloths:
        client.unsent = USER_UNSENT // 20
        house.crowd.owes(client, client.user, client.unsent)
    assert sum(client.unsent for client in sloths) <= USER_UNSENT
    assert not alone.gone


# ---------------------------------------------------------------------------------------------------- lanes


async def test_in_a_lane_users_take_turns_and_one_piece_is_done_at_a_time() -> None:
    lane, done, running = Lane(100), [], 0

    async def piece(uid: int) -> None:
        nonlocal running
        async with lane.turn(uid):
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1
            done.append(uid)

    await asyncio.gather(*(piece(GREEDY) for _ in range(50)), *(piece(MODEST) for _ in range(3)))
    assert done[:7].count(MODEST) == 3
    assert len(done) == 53


async def test_a_lane_refuses_what_is_too_much_and_goes_on_when_those_who_wait_go_away() -> None:
    lane, let = Lane(2), asyncio.Event()

    async def piece(uid: int) -> None:
        async with lane.turn(uid):
            await let.wait()

    first, second, third = (asyncio.create_task(piece(GREEDY)) for _ in range(3))
    other = asyncio.create_task(piece(MODEST))
    await asyncio.sleep(0)
    with pytest.raises(RequestError, match="2 requests of user 1001 wait") as refused:
        await piece(GREEDY)
    assert refused.value.code == "busy"
    second.cancel()
    third.cancel()
    first.cancel()
    await asyncio.sleep(0)
    let.set()
    await other
    await piece(GREEDY)
    for task in (first, second, third):
        with contextlib.suppress(asyncio.CancelledError):
            await task


# ---------------------------------------------------------------------------------------------------- reading


def test_however_many_of_a_group_are_ready_the_others_are_looked_at_after_a_few() -> None:
    selector = DirectSelector()
    pipes = [os.pipe() for _ in range(200)]
    looked: list[int] = []

    def reader(fd: int) -> Callable[[], bool]:
        def read() -> bool:
            looked.append(fd)
            if fd == lone:
                selector.wanted = True
                os.read(fd, 1)
            return True

        return read

    lone = pipes[-1][0]
    try:
        for fd, end in pipes:
            os.write(end, b"x")
            selector.direct[fd] = reader(fd)
            if fd != lone:
                selector.join("greedy", fd)
            selector.register(fd, selectors.EVENT_READ)
        assert selector.select(0) == []
        assert lone in looked
        assert len(looked) <= PART + 1
        for fd, _ in pipes:
            selector.unregister(fd)
            selector.part("greedy", fd)
    finally:
        selector.close()
        for pair in pipes:
            for fd in pair:
                os.close(fd)


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("text", "word"),
    [("btcc", "btc"), ("bt", "btc"), ("dgoe", "doge"), ("dog", "doge"), ("dogee", "doge"), ("dige", "doge"), ("train", ""), ("b", ""),
     ("", ""), ("x" * 33, ""), ("btcusd", "btc")],
)  # fmt: skip
def test_the_word_that_was_meant_differs_by_a_letter_or_is_what_the_text_begins_with(text: str, word: str) -> None:
    assert Nearest(["btc", "eth", "doge"]).find(text) == ([word] if word else [])
