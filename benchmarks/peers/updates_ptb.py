"""python-telegram-bot alone, ``concurrent_updates(True)``, running the same handler. Arguments: URL, token."""

import sys

from telegram.ext import Application, MessageHandler, filters

from benchmarks.apps.answering import answer


async def tell(application: object) -> None:
    print("receiving", flush=True)


def main(url: str, token: str) -> None:
    builder = Application.builder().token(token).base_url(f"{url}/bot").concurrent_updates(True).post_init(tell)
    application = builder.build()
    application.add_handler(MessageHandler(filters.TEXT, answer))
    application.run_polling(bootstrap_retries=5)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
