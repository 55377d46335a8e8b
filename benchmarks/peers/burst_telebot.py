"""pyTelegramBotAPI: one message to each of n chats, on 200 threads. Arguments: URL, token, n."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from telebot import TeleBot, apihelper

apihelper.API_URL = sys.argv[1] + "/bot{0}/{1}"
apihelper.READ_TIMEOUT = 120
bot = TeleBot(sys.argv[2], threaded=False)


def send(number: int) -> str | None:
    try:
        bot.send_message(1000 + number, f"burst {number}")
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a message that was not sent
        return type(error).__name__
    return None


with ThreadPoolExecutor(200) as threads:
    print(json.dumps([fault for fault in threads.map(send, range(int(sys.argv[3]))) if fault]))
