"""Every delayed message reaches only its own queue after exactly its steps: walks the declared topology itself."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from floodgate.broker.amqp import delay_ladder, topology

QUEUES = ("mail", "send.mail", "mail.mail", "0.mail", "1")
DECLARED = topology.pipeline(["news"], 3, work_queues=QUEUES)
TARGETS = [queue.name for queue in DECLARED.queues if queue.role in (topology.Role.SEND, topology.Role.WORK)]
LEVELS = {queue.name: topology.arguments(queue, (4, 0)) for queue in DECLARED.queues if queue.level is not None}


def matches(pattern: list[str], words: list[str]) -> bool:
    """A topic exchange's rule: `*` is one word, `#` any number."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


def arrivals(exchange: str, key: str, waited_ms: int = 0) -> list[tuple[str, int]]:
    """The queue where a message ends, and the delay until then."""
    bound = [b for b in DECLARED.bindings if b.exchange == exchange and matches(b.key.split("."), key.split("."))]
    ends = []
    for binding in bound:
        if binding.to_exchange is not None:
            ends += arrivals(binding.to_exchange, key, waited_ms)
        elif (level := LEVELS.get(binding.queue or "")) is not None:
            ends += arrivals(level["x-dead-letter-exchange"], key, waited_ms + level["x-message-ttl"])
        else:
            ends.append((binding.queue or "", waited_ms))
    return ends


@given(st.integers(0, delay_ladder.MAX_STEPS), st.sampled_from(TARGETS))
def test_every_delayed_message_arrives_once_after_exactly_its_steps(count: int, queue: str) -> None:
    ends = arrivals(delay_ladder.entry_exchange(count), delay_ladder.routing_key(queue, count))
    assert ends == [(queue, count * 125)]


@given(st.timedeltas(timedelta(days=-1), delay_ladder.MAX_DELAY))
def test_a_delay_is_never_too_short_and_at_most_one_unit_too_long(delay: timedelta) -> None:
    took = delay_ladder.steps(delay) * delay_ladder.UNIT
    assert timedelta(0) <= took - max(delay, timedelta(0)) < delay_ladder.UNIT


@given(st.timedeltas())
def test_every_delay_can_be_split_into_steps(delay: timedelta) -> None:
    assert 0 <= delay_ladder.steps(delay) <= delay_ladder.MAX_STEPS
