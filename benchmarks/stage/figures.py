"""What a run amounts to, from what arrived at the Bot API. Pure."""

from __future__ import annotations

import itertools
import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.stage.loads import Line
from benchmarks.stage.scenarios import Act, Scenario
from floodgate.fake_telegram.control import Arrived

LIMIT: Final = 30.0
# Of all a part's arrivals, those that count as steady: what comes before is the start, what after its tail.
STEADY: Final = (0.1, 0.9)
# Calls that were under way when a pause began arrive within this; later ones were made into the pause.
UNDER_WAY_SECONDS: Final = 0.6
ANSWER_LENGTHS: Final = 40


def figures_of(
    scenario: Scenario, arrivals: Sequence[Arrived], enqueued: Mapping[str, float], struck: Mapping[Act, float]
) -> dict[str, float]:
    """All figures of a run by the names that targets use.

    Args:
        enqueued: Unix time at which a line was handed over, by its text.
        struck: Unix time at which each event took place.
    """
    lines = {line.text: line for line in scenario.lines}
    sends = [call for call in arrivals if call.params.get("text") in lines]
    acted = [call for call in sends if call.acted]
    by_part = _by_part(acted, lines)
    times_sent = Counter(str(call.params["text"]) for call in acted)
    users = [call.at for call in acted if lines[str(call.params["text"])].part in ("users", "interactive")]
    refused = [call.at for call in sends if call.code == 429]
    found = {
        "sent": float(len(times_sent)),
        "doubled": float(sum(times_sent.values()) - len(times_sent)),
        "rate": steady_rate(users),
        "use": steady_rate(users) / LIMIT,
        "429": float(len(refused)),
        "in 1 s": float(most_within([call.at for call in acted], 1.0)),
        "disorder": float(disorder(scenario.lines, [str(call.params["text"]) for call in acted])),
        "in flight": float(max((call.in_flight for call in sends), default=0)),
    }
    if refused:
        found["first 429 at s"] = refused[0] - sends[0].at
    if scenario.to_the_end:
        found["missing"] = float(len(lines) - len(times_sent))
    found |= _reply_figures(by_part["interactive"], enqueued, scenario.latency_ms)
    found |= _group_figures(by_part["group"])
    found |= _pause_figures(scenario, sends, struck)
    return found


def steady_rate(times: Sequence[float]) -> float:
    """Arrivals a second in the steady part; 0 for too few to tell."""
    first, last = (int(len(times) * part) for part in STEADY)
    return (last - first) / (times[last] - times[first]) if last - first >= 10 else 0.0


def most_within(times: Sequence[float], seconds: float) -> int:
    """How many the fullest window (t - seconds, t] holds. ``times`` are in order."""
    most = start = 0
    for end, moment in enumerate(times):
        while times[start] <= moment - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


def disorder(lines: Sequence[Line], texts: Sequence[str]) -> int:
    """How many lines were first sent after a later one of their chat and priority."""
    position: dict[str, int] = {}
    for number, text in enumerate(texts):
        position.setdefault(text, number)
    chats: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
    for line in lines:
        if line.text in position:
            chats[line.chat, line.bulk].append(position[line.text])
    return sum(later < earlier for chat in chats.values() for earlier, later in itertools.pairwise(chat))


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _by_part(acted: Sequence[Arrived], lines: Mapping[str, Line]) -> defaultdict[str, list[Arrived]]:
    parts: defaultdict[str, list[Arrived]] = defaultdict(list)
    for call in acted:
        parts[lines[str(call.params["text"])].part].append(call)
    return parts


def with_answers(waits: Sequence[float], latency_ms: tuple[float, float]) -> list[float]:
    """Each wait followed by answers of every length that the Bot API takes, all equally likely."""
    lowest, highest = latency_ms
    answers = [(lowest + (highest - lowest) * n / ANSWER_LENGTHS) / 1000 for n in range(ANSWER_LENGTHS + 1)]
    return [wait + answer for wait in waits for answer in answers]


def _reply_figures(
    replies: Sequence[Arrived], enqueued: Mapping[str, float], latency_ms: tuple[float, float]
) -> dict[str, float]:
    """From handing a reply over to its arrival, which is all but the Bot API's own time; and to its answer."""
    waits = [call.wall - enqueued[str(call.params["text"])] for call in replies]
    if not waits:
        return {}
    return {
        "replies": float(len(waits)),
        "reply p50 s": statistics.median(waits),
        "reply p99 s": percentile(waits, 0.99),
        "reply max s": max(waits),
        "answered p99 s": percentile(with_answers(waits, latency_ms), 0.99),
    }


def _group_figures(calls: Sequence[Arrived]) -> dict[str, float]:
    """A group's rate over whole minutes, from its first message to the one sixty, a hundred and twenty … seconds on."""
    if len(calls) < 2:
        return {}
    times = [call.at for call in calls]
    minutes = int((times[-1] - times[0]) // 60)
    whole = bisect_left(times, times[0] + 60 * minutes) if minutes else 0
    rate = whole / minutes if minutes else 0.0
    return {"group a minute": rate, "group in 60 s": float(most_within(times, 60.0))}


def _pause_figures(scenario: Scenario, sends: Sequence[Arrived], struck: Mapping[Act, float]) -> dict[str, float]:
    """Calls into a pause that were not under way when its first 429 was answered, and the crowd after the bot's."""
    late = early = 0
    found: dict[str, float] = {}
    for event in scenario.events:
        if event.act not in (Act.PAUSE_CHAT, Act.PAUSE_BOT):
            continue
        began = struck[event.act]
        hit = [
            call.wall
            for call in sends
            if began <= call.wall < began + event.seconds and event.chat in (None, call.chat_id) and call.code == 429
        ]
        early += sum(moment < hit[0] + UNDER_WAY_SECONDS for moment in hit)
        late += sum(moment >= hit[0] + UNDER_WAY_SECONDS for moment in hit)
        if event.act is Act.PAUSE_BOT:
            after = [call.at for call in sends if began + event.seconds <= call.wall < began + event.seconds + 5]
            found["in 0.25 s after"] = float(most_within(after, 0.25))
    if struck:
        found |= {"into pauses early": float(early), "into pauses late": float(late)}
    return found
