"""The clock: what a stepped one is, and what a sped one says."""

import pytest

from cryptod.clock import STEP_SHOWN, SpedClock, StepWatch, SystemClock, parse_clock
from cryptod.errors import ConfigError


class Machine:
    """The two clocks of a machine, in seconds; the test moves them."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def watch(self) -> StepWatch:
        return StepWatch(lambda: self.wall, lambda: self.monotonic)


def test_time_that_passes_is_no_step() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.pass_by(86_400)
    machine.wall += 0.5
    assert not watch.stepped()
    assert watch.step == 0


@pytest.mark.parametrize("seconds", [-86_400.0, 3 * 86_400.0])
def test_a_step_is_noticed_once_and_shown_for_an_hour(seconds: float) -> None:
    machine = Machine()
    watch = machine.watch()
    machine.wall += seconds
    assert watch.stepped()
    assert not watch.stepped(), "it was stepped once"
    machine.pass_by(STEP_SHOWN - 1)
    assert not watch.stepped()
    assert watch.step == pytest.approx(seconds)
    machine.pass_by(2)
    assert not watch.stepped()
    assert watch.step == 0


def test_a_machine_that_has_just_started_shows_no_step() -> None:
    machine = Machine()
    machine.monotonic = 1.0
    assert machine.watch().step == 0


def test_a_sped_clock_is_read_from_its_own_text() -> None:
    clock = parse_clock("1000@500x60")
    assert isinstance(clock, SpedClock)
    assert str(clock) == "1000@500x60"
    assert clock.real_seconds(60) == 1
    assert isinstance(parse_clock("system"), SystemClock)
    with pytest.raises(ConfigError, match="is not understood"):
        parse_clock("fast")
