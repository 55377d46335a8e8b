"""A Redis that hangs instead of ending: it accepts connections, and carries out later what its callers gave up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from floodgate.broker.admission.contract import Admission, Go, Sent, Wait
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.settings.redis_address import RedisAddress
from floodgate.broker.state.calls import AdmissionCall
from floodgate.broker.state.redis import clients
from floodgate.broker.state.redis.admission import AdmissionScript, RedisAdmission
from tests import awaited_admission
from tests.admission_bench import ask_of, settings_of
from tests.redis_servers import ShardedRedis
from tests.services import RedisServer

RULES = policy_of(settings_of())
HANGS = "does not answer in time: it hangs, or the network to it does. Sends resume when"
IN_BATCHES = awaited_admission.on_redis


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A call that gets no answer fails after twice this time."""
    monkeypatch.setattr(clients, "TIMEOUT_SECONDS", 0.7)
    yield


@pytest.mark.parametrize("make", [RedisAdmission, IN_BATCHES])
def test_a_job_that_asked_a_server_that_hangs_is_sent_when_it_goes_on(
    make: Callable[..., Admission], redis_url: str, redis_server: RedisServer
) -> None:
    ask, behind = ask_of(5), ask_of(5)
    with closing(make(redis_url, RULES)) as store, closing(make(redis_url, RULES)) as other:
        store.vouch_idle("default")
        with redis_server.frozen():
            with pytest.raises(StateUnavailableError, match=f"127.0.0.1:{redis_server.port} {HANGS}"):
                store.admit(ask)
            thawed_at = time.monotonic()
        go = store.admit(ask)
        assert isinstance(go, Go), "not the lease of its first ask, which the server has carried out meanwhile"
        assert go.decided_at < thawed_at, "the permit counts from the first ask, so it is too old to be used"
        assert isinstance(other.admit(ask), Wait), "for another process, its call may be under way"
        assert isinstance(store.admit(ask), Wait), "an answered ask is not repeated"
        store.settle(ask, Sent(True), go.grant)
        wait = store.admit(behind)
        assert isinstance(wait, Wait)
        assert wait.delay.total_seconds() < 2


def test_an_ask_keeps_its_nonce_until_it_is_answered() -> None:
    script = AdmissionScript(RULES, None, RedisAddress.parse("redis://127.0.0.1"))
    call = AdmissionCall("admit", "default", (ask_of(5),))
    first = script.given(call)
    for _ in range(2):
        script.lost([call], [first])
        assert script.given(call) == first
    assert script.given(call).arguments != first.arguments


def test_a_node_of_a_cluster_that_hangs_stops_its_own_bots_until_it_goes_on(
    cluster_url: str, redis_cluster: ShardedRedis
) -> None:
    away, here = "default", redis_cluster.bot_elsewhere("default")
    ask = ask_of(5, bot=away)
    with closing(IN_BATCHES(cluster_url, RULES)) as store:
        for bot in (away, here):
            store.vouch_idle(bot)
        with redis_cluster.without_answers_for(away):
            with pytest.raises(StateUnavailableError, match=r"\(a cluster\) does not answer in time|no node serves"):
                store.admit(ask)
            assert isinstance(store.admit(ask_of(6, bot=here)), Go)
        assert isinstance(store.admit(ask), Go)
