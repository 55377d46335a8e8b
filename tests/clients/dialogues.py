"""The programs of others, and what their users say to them.

A turn is what a user does and a text of a call that the program makes then: of its method or its parameters. A user
says a text, presses a button (`press:DATA`) of the last message, or does what an update describes, in which "USER",
"GROUP" and "LAST" are the ids of the user, the group and the last message. None: the program makes the call by itself.
"""

from __future__ import annotations

from typing import Any, Final

Turn = tuple[str | dict[str, Any] | None, str]

_PERSON: Final = {"id": "USER", "is_bot": False, "first_name": "Ada", "language_code": "en"}
_GROUP: Final = {"id": "GROUP", "type": "supergroup", "title": "A group"}


def message(**content: Any) -> dict[str, Any]:
    """Make a private message."""
    return {"message": {"from": _PERSON, "chat": {**_PERSON, "type": "private"}, **content}}


def in_group(**content: Any) -> dict[str, Any]:
    """Make a message in a group."""
    return {"message": {"from": _PERSON, "chat": _GROUP, **content}}


def inline(query: str) -> dict[str, Any]:
    """Make an inline query."""
    return {"inline_query": {"id": "7", "from": _PERSON, "query": query, "offset": ""}}


def checkout(payload: str) -> dict[str, Any]:
    """Make a pre-checkout query."""
    query = {"id": "8", "from": _PERSON, "currency": "XTR", "total_amount": 42, "invoice_payload": payload}
    return {"pre_checkout_query": query}


def _member(status: str) -> dict[str, Any]:
    return {"status": status, "user": _PERSON}


JOINS: Final = {
    "chat_member": {
        "chat": _GROUP,
        "from": _PERSON,
        "date": 1,
        "old_chat_member": _member("left"),
        "new_chat_member": _member("member"),
    }
}
ASKS_TO_JOIN: Final = {"chat_join_request": {"chat": _GROUP, "from": _PERSON, "user_chat_id": "USER", "date": 1}}
NEW_MEMBER: Final = in_group(new_chat_members=[_PERSON])
FORWARDED: Final = message(text="x", forward_origin={"type": "user", "date": 1, "sender_user": _PERSON})
ECHO: Final[tuple[Turn, ...]] = (("/start", "sendMessage"), ("hello 🙂", "hello 🙂"))

PTB: Final[dict[str, tuple[Turn, ...]]] = {
    "arbitrarycallbackdatabot": (("/start", "Please choose:"), ("/clear", "All clear!")),
    "chatmemberbot": (("hi", "Welcome"), ("/show_chats", "conversation with the user IDs")),
    "contexttypesbot": (("/start", "was clicked <i>0</i> times"), ("press:button", "was clicked <i>1</i> times")),
    "conversationbot": (("/start", "Are you a boy or a girl?"), ("Other", "send me a photo")),
    "conversationbot2": (("/start", "Doctor Botter"), ("Age", "Your age?"), ("32", "Neat!")),
    "deeplinking": (("/start", "Feel free to tell your friends"), ("/start check-this-out", "Awesome")),
    "echobot": (("/help", "Help!"), ("hello 🙂", "hello 🙂")),
    "errorhandlerbot": (("/bad_command", "An exception was raised"),),
    "inlinebot": (("/start", "Hi!"), (inline("abc"), "ABC")),
    "inlinekeyboard": (("/start", "Option 2"), ("press:2", "Selected option: 2")),
    "inlinekeyboard2": (("/start", "Choose a route"), ("press:0", "First CallbackQueryHandler")),
    "nestedconversationbot": (("/start", "I'm Family Bot"),),
    "paymentbot": (("/noshipping", "sendInvoice"), (checkout("Custom-Payload"), "answerPreCheckoutQuery")),
    "persistentconversationbot": (("/start", "Doctor Botter"), ("Age", "Your age?")),
    "pollbot": (("/poll", "sendPoll"), ("/quiz", "sendPoll")),
    "rawapibot": (("hello 🙂", "hello 🙂"),),
    "timerbot": (("/set 1", "Timer successfully set!"), (None, "Beep!")),
    "webappbot": (("/start", "web_app"),),
}

AIOGRAM: Final[dict[str, tuple[Turn, ...]]] = {
    "echo_bot": ECHO,
    "error_handling": (("/age", "Error caught"), ("/age 7", "Your age is 7")),
    "finite_state_machine": (("/start", "What's your name?"), ("Ada", "Nice to meet you, Ada"), ("no", "Not bad")),
    "multi_file_bot/bot": ECHO,
    "quiz_scene": (("/quiz", "What is the capital of France?"), ("Paris", "What is the capital of Spain?")),
    "scene": (("/start", "sendMessage"),),
    "specify_updates": (("/start", "Tap me, bro"), ("press:*", "Yeah good, now I'm fine"), (JOINS, "was changed")),
    "stars_invoice": (("/start", "Demo invoice"), (checkout("demo"), "answerPreCheckoutQuery")),
    "without_dispatcher": ((None, "Hello, World!"),),
}

# Most of pyTelegramBotAPI's examples exist for TeleBot and for AsyncTeleBot.
_BOTH: Final[dict[str, tuple[Turn, ...]]] = {
    "callback_data_examples/simple_products_example": (("/products", "xiaomi"), ("press:products:1", "samsung s20")),
    "chat_join_request": ((ASKS_TO_JOIN, "approveChatJoinRequest"),),
    "chat_member_example": ((JOINS, "Hello Ada!"), (NEW_MEMBER, "deleteMessage"), ("/set_tag", "Usage: /set_tag")),
    "continue_handling": (("/start", "Hello World2!"),),
    "custom_filters/advanced_text_filter": (("hello", "hello"),),
    "custom_filters/general_custom_filters": (("hi", "You said hi"), ("/admin", "You are not admin")),
    "custom_filters/id_filter_example": (("/admin", "You are not allowed"),),
    "custom_filters/is_filter_example": ((FORWARDED, "I do not accept forwarded messages!"),),
    "custom_filters/text_filter_example": (("hi", "Hi, "), ("@admin", "calling admin")),
    "custom_states": (("/start", "What is your first name?"), ("Ada", "How old are you?"), ("7", "favorite color")),
    "formatting_example": (("/start", "MarkdownV2"),),
    "message_reaction_example": (("hi", "setMessageReaction"),),
    "mini_app": (("/start", "Start MiniApp"),),
    "register_handler": (("/start", "Hello!"),),
    "send_message_draft_example": (("/draft", "Done."),),
    "set_command_example": ((None, "setMyCommands"),),
    "skip_updates_example": (("/start", "Howdy"), ("hello 🙂", "hello 🙂")),
}

TELEBOT: Final[dict[str, tuple[Turn, ...]]] = {
    **_BOTH,
    **{f"asynchronous_telebot/{name}": turns for name, turns in _BOTH.items()},
    "asynchronous_telebot/callback_data_examples/advanced_calendar_example/main": (("/calendar", "sendMessage"),),
    "anonymous_bot": (("/start", "Just use /find command!"), ("/find", "Finding...")),
    "create_invite_link": (("/start", "made by pyTelegramBotAPI"),),  # the fake has no createChatInviteLink
    "deep_linking": (("/start abc", "Hello ABC"),),
    "detailed_example/detailed_example": (("/start", "let me scan you"), ("/help", "commands are available")),
    "echo_bot": ECHO,
    "inline_example": ((inline("photo1"), "answerInlineQuery"),),
    "inline_keyboard_example": (("hi", "Yes/no?"), ("press:cb_yes", "Answer is Yes")),
    "middleware/class_based/antiflood_middleware": (("/start", "Hello!"), ("/start", "too often")),
    "middleware/class_based/basic_example": (("/start", "sendMessage"),),
    "middleware/function_based/i18n": (("/start", "sendMessage"),),
    "middleware/function_based/session": (("/start", "sendMessage"),),
    "payments_example": (("/start", "demo merchant bot"), ("/buy", "sendInvoice")),
    "poll_example": (("/poll", "sendPoll"),),
    "reply_keyboard_markup_example": (("/start", "You can use the keyboard"),),
    "stars_payment": (("/start", "Welcome to Stars Payment Bot!"), ("10 Stars", "sendInvoice")),
    "step_example": (("/start", "What's your name?"), ("Ada", "How old are you?"), ("7", "What is your gender")),
    "timer_bot": (("/set 1", "Beep!"),),
    "asynchronous_telebot/download_file_example": (("PHOTO", "Done!"),),
    "asynchronous_telebot/echo_bot": ECHO,
    "asynchronous_telebot/exception_handler": (("/photo", "example of exception handlers"),),
    "asynchronous_telebot/middleware/flooding_middleware": (("/start", "Hello!"), ("/start", "too often")),
    "asynchronous_telebot/middleware/i18n": (("/start", "hello"),),
    "asynchronous_telebot/update_listener": (("/start", "Hello!"),),
}

LINK: Final = in_group(text="www.example.org", entities=[{"type": "url", "offset": 0, "length": 15}])
REPLY: Final = {"reply_to_message": {"message_id": "LAST", "date": 1, "chat": _GROUP, "from": _PERSON}}
WARN: Final = in_group(text="/warn", **REPLY)

# In the spirit of bots and services whose sources no package registry has; the files are in the folder `written`.
WRITTEN: Final[dict[str, tuple[Turn, ...]]] = {
    "feedback_aiogram.py": (
        ("I like it", "copyMessage"),
        (in_group(text="So do we", **REPLY), "copyMessage"),
    ),
    "feedback_telegraf.cjs": (
        ("/start", "we read everything"),
        ("I like it", "forwardMessage"),
        (in_group(text="So do we", **REPLY), "copyMessage"),
    ),
    "moderation_grammy.cjs": (
        (NEW_MEMBER, "Welcome, Ada!"),
        (LINK, "Warning 1 of 2"),
        (LINK, "deleteMessage"),
        (LINK, "Muted for an hour."),
    ),
    "moderation_ptb.py": (
        (ASKS_TO_JOIN, "approveChatJoinRequest"),
        (in_group(text="/rules"), "pinChatMessage"),
        (WARN, "First warning for Ada"),
        (WARN, "banChatMember"),
    ),
    "newsletter_flask.py": ((None, "Ada subscribed"),),
}

DIALOGUES: Final = {"written": WRITTEN, "ptb": PTB, "aiogram": AIOGRAM, "telebot": TELEBOT}

# Why an example is not run. A test finds those that are neither here nor above.
_WEBHOOK: Final = "serves a webhook at an address of its author's"
_FRAGMENT: Final = "is a part of a program"
NOT_RUN: Final = {
    "ptb": {
        "customwebhookbot/": _WEBHOOK,
        "passportbot": "needs a private key that is registered with Telegram",
    },
    "aiogram": {
        "context_addition_from_filter": _FRAGMENT,
        "echo_bot_webhook": _WEBHOOK,
        "echo_bot_webhook_ssl": _WEBHOOK,
        "multi_file_bot/handlers/": _FRAGMENT,
        "multibot": _WEBHOOK,
        "own_filter": _FRAGMENT,
        "web_app/": _WEBHOOK,
    },
    "telebot": {
        "asynchronous_telebot/callback_data_examples/advanced_calendar_example/filters": _FRAGMENT,
        "asynchronous_telebot/callback_data_examples/advanced_calendar_example/keyboards": _FRAGMENT,
        "asynchronous_telebot/custom_filters/admin_filter_example": "answers administrators, and the fake has none",
        "asynchronous_telebot/detect_changes": "restarts itself with the author's command line",
        "asynchronous_telebot/middleware/i18n_middleware_example/": "needs translations that are compiled first",
        "asynchronous_telebot/multibot/": _WEBHOOK,
        "asynchronous_telebot/send_file_example": "sends files that its author had",
        "asynchronous_telebot/timer_bot_async": "needs the library aioschedule",
        "asynchronous_telebot/webhooks/": _WEBHOOK,
        "callback_data_examples/advanced_calendar_example/": "imports itself by its path in its author's repository",
        "custom_filters/admin_filter_example": "answers administrators, and the fake has none",
        "detect_changes": "restarts itself with the author's command line",
        "download_file_example": "sends a file that its author had, to a chat of the author's",
        "middleware/class_based/i18n_middleware/": "needs translations that are compiled first",
        "middleware/function_based/i18n_gettext/": "needs translations that are compiled first",
        "multibot/": _WEBHOOK,
        "serverless/": _WEBHOOK,
        "telebot_bot/": "answers in a group of its author's",
        "webhook_examples/": _WEBHOOK,
    },
}
