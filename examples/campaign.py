"""A campaign from a program: reads the audience from the shop's database, and reports what became of each customer.

    python campaign.py shop.db spring-2026

`floodgate worker` and `floodgate campaigns run` send it. If this program ends early, the campaign goes on.
"""

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from floodgate import CampaignState, Client, FloodgateError, RecipientState

CONTENT = {"text": "Hello {{ first_name }}! Our spring sale begins.", "fallbacks": {"first_name": "there"}}


def customers(database: str) -> Iterator[dict[str, Any]]:
    with closing(sqlite3.connect(database)) as shop:
        for chat_id, first_name in shop.execute("SELECT chat_id, first_name FROM customers"):
            yield {"chat_id": chat_id, "first_name": first_name}


def main(database: str, name: str) -> int:
    try:
        with Client() as client:
            campaigns = client.campaigns
            campaigns.create({"name": name, "content": CONTENT}, customers(database))
            campaigns.start(name)
            while (progress := campaigns.progress(name)).campaign.state is CampaignState.RUNNING:
                print(f"{progress.ended} of {progress.total}", flush=True)
                time.sleep(1)
            for recipient in campaigns.recipients(name):
                if recipient.state is not RecipientState.SENT:
                    print(f"{recipient.chat}: {recipient.state.name.lower()} ({recipient.error})")
    except FloodgateError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{name} is {progress.campaign.state}: {progress.counts[RecipientState.SENT]} got it")
    return 0 if progress.campaign.state is CampaignState.DONE else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
