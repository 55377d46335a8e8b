"""A bot's history as points of a plot: sums are rates, gauges keep their extremes, and gaps stay gaps."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.activity import History, Resolution, Series
from floodgate.web.history import (
    MOST_POINTS,
    ROWS_SHARE,
    Histories,
    Span,
    lag_lines,
    queue_lines,
    rate_lines,
    rows_of,
    update_lines,
    wait_lines,
)

HISTORY = History(
    [100, 101, 104],
    {
        Series.SENT: [10.0, 20.0, 6.0],
        Series.LIMIT: [30.0, 25.0, None],
        Series.WAITING_BULK: [7.0, 9.0, None],
        Series.WAITS_PAUSE: [0.0, 4.0, 0.0],
    },
)


def test_what_was_sent_is_a_rate_beside_the_lowest_limit_of_each_step() -> None:
    plot = rate_lines(HISTORY, 2)
    assert plot.times == [100, 102, 104]
    assert plot.lines == {"sent a second": [15.0, None, 3.0], "limit": [25.0, None, None]}


def test_the_most_that_waited_is_kept_and_waits_are_counted_by_cause() -> None:
    assert queue_lines(HISTORY, 2).lines["bulk"] == [9.0, None, None]
    assert wait_lines(HISTORY, 2).lines["pause"] == [2.0, None, 0.0]


def test_a_plot_and_a_table_are_bounded_whatever_the_span() -> None:
    for span in Span:
        seconds = int(span.length.total_seconds())
        times = range(0, seconds, span.resolution.seconds)
        history = History(times, {Series.SENT: [1.0] * len(times)})
        assert len(rate_lines(history, span.step_seconds).times) <= MOST_POINTS
        assert len(rows_of("rate", history, span).times) <= MOST_POINTS / ROWS_SHARE
    assert rate_lines(History([], {}), 2).times == []


def test_a_history_is_read_once_for_all_who_look_and_again_after_an_error() -> None:
    answers: list[History | None] = [None, HISTORY]
    asked: list[tuple[str, Resolution, timedelta]] = []

    async def read(*arguments: object) -> History:
        asked.append(arguments)  # type: ignore[arg-type]
        if (answer := answers.pop(0)) is None:
            raise StateUnavailableError("The store is away.")
        return answer

    async def scenario() -> None:
        histories = Histories(read)
        assert (await histories.look("news", Span.TEN_MINUTES)).part.problem == "The store is away."
        for _ in range(3):
            assert (await histories.look("news", Span.TEN_MINUTES)).part.value is HISTORY

    asyncio.run(scenario())
    assert asked == [("news", Resolution.SECOND, timedelta(minutes=10))] * 2


def test_lag_is_a_mean_over_the_updates_that_were_handled() -> None:
    history = History([10, 11, 12], {Series.HANDLED: [1.0, 3.0, 0.0], Series.UPDATE_LAG: [1.0, 7.0, 0.0]})
    assert lag_lines(history, 2).lines == {"lag in seconds": [2.0, None]}
    assert update_lines(history, 2).lines["handled a second"] == [2.0, 0.0]
