"""A script for cron: sends a report, waits until Telegram has it, and exits with 0 if that succeeded.

17 6 * * *  FLOODGATE_RABBITMQ_URL=… python /srv/cron_report.py 42
"""

import sys
from datetime import UTC, datetime

from floodgate import Client, FloodgateError


def main(chat_id: int) -> int:
    today = datetime.now(UTC).date().isoformat()
    try:
        with Client() as client:
            job = client.send_message(chat_id, f"Report of {today}: all is well", dedupe_key=f"report-{today}")
            message = client.result(job, timeout=60)
    except FloodgateError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"message {message['message_id']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
