"""The ladder's arithmetic in single cases; tests/properties has the rest."""

from datetime import timedelta

import pytest

from floodgate.broker.amqp import delay_ladder
from floodgate.broker.messages.publication import Publication


@pytest.mark.parametrize(
    ("delay", "count"),
    [
        (timedelta(0), 0),
        (timedelta(seconds=-5), 0),
        (timedelta(microseconds=1), 1),
        (delay_ladder.UNIT, 1),
        (delay_ladder.UNIT + timedelta(microseconds=1), 2),
        (timedelta(seconds=10), 80),
        (delay_ladder.MAX_DELAY, delay_ladder.MAX_STEPS),
        (timedelta(days=4000), delay_ladder.MAX_STEPS),
    ],
)
def test_a_delay_is_rounded_up_to_whole_units_and_clipped(delay: timedelta, count: int) -> None:
    assert delay_ladder.steps(delay) == count


def test_the_longest_delay_is_more_than_a_year() -> None:
    assert timedelta(days=366) < delay_ladder.MAX_DELAY


def test_the_routing_key_is_the_bits_followed_by_the_queue() -> None:
    key = delay_ladder.routing_key("send.default.bulk.07", 0b1011)
    assert key.split(".")[: delay_ladder.LEVELS] == list("1011".zfill(28))
    assert key.endswith(".1.0.1.1.send.default.bulk.07")


def test_a_message_enters_at_its_highest_set_bit() -> None:
    assert delay_ladder.entry_exchange(0b1011) == "floodgate.delay.03"
    assert delay_ladder.entry_exchange(1) == "floodgate.delay.00"
    assert delay_ladder.entry_exchange(delay_ladder.MAX_STEPS) == "floodgate.delay.27"
    assert delay_ladder.entry_exchange(0) == delay_ladder.DELIVER_EXCHANGE


def test_a_delayed_publication_differs_only_in_route_and_priority() -> None:
    fresh = Publication("", "mail", b"{}", "id", headers={"a": 1})
    late = delay_ladder.delayed(fresh, timedelta(seconds=1))
    assert (late.body, late.message_id, late.headers) == (fresh.body, fresh.message_id, fresh.headers)
    assert late.exchange == "floodgate.delay.03"
    assert late.routing_key.endswith("1.0.0.0.mail")
    assert late.priority == 9
