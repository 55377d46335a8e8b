"""The last minute of a bot, as the picture sums it up."""

from __future__ import annotations

from datetime import timedelta

from floodgate.broker.state.activity import History, Series
from floodgate.overview.last_minute import LastMinute, last_minute


def test_a_second_without_a_report_is_one_without_messages() -> None:
    minute = last_minute(History([100, 103], {Series.SENT: [7, 9]}))
    assert minute.sent == (0,) * 56 + (7, 0, 0, 9)


def test_waits_are_summed_by_cause_and_the_most_frequent_comes_first() -> None:
    values = {Series.WAITS_LINE: [1, 2], Series.WAITS_RATE: [4, None], Series.WAITS_PAUSE: [0, 0]}
    assert last_minute(History([100, 101], values)).waits == (("rate", 4), ("line", 3))


def test_the_lag_of_updates_is_an_average() -> None:
    minute = last_minute(History([100, 101], {Series.HANDLED: [1, 3], Series.UPDATE_LAG: [2.0, 4.0]}))
    assert minute.update_lag == timedelta(seconds=1.5)
    assert last_minute(History([100], {Series.SENT: [1]})).update_lag is None


def test_without_reports_the_minute_is_empty() -> None:
    assert last_minute(History([], {})) == LastMinute()
