"""Classification is total: any code, text or exception chain has an outcome, and sends are never repeated blindly."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st
from telegram import error as ptb

from floodgate.actors.answers import MAX_DESCRIPTION, MAX_RETRY_AFTER, Break, Refusal, answer_to_error, read_refusal
from floodgate.actors.backoff import CAP, next_step
from floodgate.actors.classify import CallFacts, classify
from floodgate.actors.outcomes import Dead, Outcome, Paused, Retry, Uncertain
from floodgate.broker.admission.contract import Retrying
from floodgate.broker.errors import CutOffError, NotSentError
from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.method_table import METHODS, Charge
from floodgate.broker.settings.model import Settings

KNOWN_TEXTS = st.sampled_from(
    [
        "Bad Request: ",
        "Forbidden: ",
        "retry after ",
        "message is not modified",
        "chat not found",
        "failed to send message #2 with the error message ",
        "group send failed",
        "message to delete not found",
        "Not Found",
        "7",
        '"',
    ]
)
TEXTS = st.lists(KNOWN_TEXTS | st.text(max_size=20), max_size=6).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries({}, optional={"retry_after": JSON, "migrate_to_chat_id": JSON}) | JSON
ERRORS = st.fixed_dictionaries(
    {"ok": st.just(False)},
    optional={"error_code": st.integers() | JSON, "description": TEXTS, "parameters": PARAMETERS},
)
BODIES = ERRORS.map(lambda fields: json.dumps(fields).encode()) | st.binary(max_size=200)
CALLS = st.builds(CallFacts, st.sampled_from(sorted(METHODS)) | st.text(max_size=12), st.booleans())
EXCEPTIONS = st.sampled_from(
    [
        ptb.TelegramError("x"),
        ptb.NetworkError("x"),
        ptb.TimedOut(),
        ptb.BadRequest("Bad Request: retry after 3"),
        ptb.Forbidden("x"),
        ptb.InvalidToken(),
        ptb.Conflict("x"),
        ptb.ChatMigrated(0),
        NotSentError("x"),
        CutOffError("x"),
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        OSError(),
        ValueError(),
        KeyError("result"),
        RecursionError(),
    ]
)


@given(st.integers(0, 1000), BODIES, CALLS)
def test_any_http_answer_has_an_outcome(status: int, body: bytes, call: CallFacts) -> None:
    outcome = classify(read_refusal(status, body), call)
    assert isinstance(outcome, get_args(Outcome))
    if isinstance(outcome, Paused):
        assert timedelta() <= outcome.retry_after <= MAX_RETRY_AFTER
    if isinstance(outcome, Dead):
        assert len(outcome.description) <= MAX_DESCRIPTION


@given(st.lists(EXCEPTIONS, min_size=1, max_size=5), CALLS)
def test_any_exception_chain_has_an_outcome(chain: list[BaseException], call: CallFacts) -> None:
    for error, cause in zip(chain, chain[1:] + chain[:1], strict=True):
        error.__cause__ = cause
    assert isinstance(classify(answer_to_error(chain[0]), call), get_args(Outcome))


@given(
    st.sampled_from(sorted(name for name, each in METHODS.items() if each.charge is Charge.MESSAGE)),
    st.builds(Break, st.text(max_size=9), st.just(False)) | st.builds(Refusal, st.integers(500, 599), TEXTS),
)
def test_a_message_that_may_have_been_sent_is_not_retried_unconditionally(method: str, answer: Break | Refusal) -> None:
    assert not isinstance(classify(answer, CallFacts(method)), Retry)


@given(
    st.integers(0, 300),
    st.floats(0, 1, exclude_max=True),
    st.builds(Retry, st.text(max_size=5), st.booleans(), st.none() | st.integers(1, 9))
    | st.builds(Uncertain, st.text(max_size=5), st.none() | st.timedeltas(timedelta(), MAX_RETRY_AFTER)),
)
def test_retries_end_and_delays_are_bounded(attempts: int, draw: float, outcome: Retry | Uncertain) -> None:
    settings = Settings(_env_file=None)
    job = new_job("sendMessage", {"chat_id": 1, "text": "x"}, now_ms=0).model_copy(update={"attempts": attempts})
    step = next_step(job, outcome, settings, 1000, lambda: draw)
    if isinstance(step, Retrying):
        assert timedelta() <= step.delay <= max(CAP, MAX_RETRY_AFTER)
        assert attempts + 1 < settings.max_attempts or (isinstance(outcome, Retry) and outcome.surely_not_sent)
    too_late = int(settings.max_age_seconds * 1000)
    assert isinstance(next_step(job, outcome, settings, too_late, lambda: draw), Dead)
