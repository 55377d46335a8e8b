"""Every example does what it says when run the way its users run it."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rabbitmq_node.engine import free_ports
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import clients_python
from tests.acceptance.stage import TOKEN
from tests.processes import ROOT, environment
from tests.waiting import until

EXAMPLES = ROOT / "examples"
SHOP = EXAMPLES / "django_shop"
BOT_ID = int(TOKEN.partition(":")[0])
UNREACHABLE = "amqp://guest:guest@127.0.0.1:1/"
_chats = itertools.count(9_000_000)


def env_of(gate: Gate, home: Path, **more: str) -> dict[str, str]:
    return environment({**gate.stage.env, "SHOP_HOME": str(home), "GATEWAY_URL": gate.url, "BOT_TOKEN": TOKEN, **more})


def run(*command: str, env: dict[str, str], home: Path) -> str:
    done = subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(*command: str, env: dict[str, str], home: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that prints `ready` once it serves, ended by SIGINT."""
    log = home / "program.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    try:
        until(lambda: ready in log.read_text() or process.poll() is not None, 40)
        assert ready in log.read_text(), log.read_text()
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def texts(gate: Gate, *chats: int) -> list[str]:
    """The texts that these chats got. Tests share the gateway, so jobs of earlier tests may still arrive."""
    calls = [call for call in gate.stage.control.arrivals() if call.acted and "text" in call.params]
    return [str(call.params["text"]) for call in calls if call.chat_id in chats]


@pytest.fixture
def shop(gate: Gate, tmp_path: Path) -> dict[str, str]:
    """The environment of a shop with its tables."""
    env = env_of(gate, tmp_path)
    run(clients_python(), str(SHOP / "manage.py"), "migrate", "--verbosity=0", env=env, home=tmp_path)
    return env


def test_djangos_migrate_ends_at_once_without_threads_or_rabbitmq(gate: Gate, tmp_path: Path) -> None:
    program = (
        "import sys, threading; sys.path.insert(0, sys.argv[1]); sys.argv[1:] = ['migrate', '--verbosity=0']\n"
        "import manage; from django.core.management import execute_from_command_line as execute\n"
        "execute(sys.argv); import shop.messages\n"
        "print([thread.name for thread in threading.enumerate()])"
    )
    env = env_of(gate, tmp_path, FLOODGATE_RABBITMQ_URL=UNREACHABLE)
    assert run(clients_python(), "-c", program, str(SHOP), env=env, home=tmp_path) == "['MainThread']\n"


def test_eight_prefork_workers_of_django_enqueue_at_once(gate: Gate, shop: dict[str, str], tmp_path: Path) -> None:
    port = free_ports().amqp
    command = [
        clients_python(),
        "-m",
        "gunicorn",
        "--workers=8",
        "--preload",
        "--graceful-timeout=5",
        f"--bind=127.0.0.1:{port}",
    ]
    with serving(*command, f"--chdir={SHOP}", "shop.wsgi", env=shop, home=tmp_path, ready="Booting worker with pid"):
        url = f"http://127.0.0.1:{port}/orders"

        def place(chat: int) -> dict[str, int]:
            answer: dict[str, int] = httpx.post(url, data={"chat_id": chat}, timeout=40).json()
            return answer

        chats = [next(_chats) for _ in range(32)]
        with ThreadPoolExecutor(16) as threads:
            orders = list(threads.map(place, chats))
        undone = next(_chats)
        httpx.post(url, data={"chat_id": undone, "change_my_mind": "yes"}, timeout=40)
    assert len({order["process"] for order in orders}) > 1
    expected = sorted(f"Order {order['order']} is placed" for order in orders)
    until(lambda: len(texts(gate, *chats)) >= len(expected), 30)
    assert sorted(texts(gate, *chats)) == expected
    assert texts(gate, undone) == []
    reminded = run(clients_python(), str(SHOP / "manage.py"), "remind", env=shop, home=tmp_path)
    assert reminded == "Queued 32 reminders\n"


def test_the_fastapi_service_enqueues_and_reports_the_result(gate: Gate, tmp_path: Path) -> None:
    port = free_ports().amqp
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--port", str(port), "fastapi_app:app"]
    with serving(*command, env=env_of(gate, tmp_path), home=tmp_path, ready="startup complete"):
        url, chat = f"http://127.0.0.1:{port}/notices", next(_chats)
        answer = httpx.post(url, json={"chat_id": chat, "text": "from FastAPI"}, timeout=30)
        assert answer.status_code == 202
        assert httpx.get(f"{url}/{answer.json()['job']}", timeout=30).json() == {"message_id": 1}
        assert httpx.post(url, json={"chat_id": chat, "text": ""}, timeout=30).status_code == 422


def test_the_celery_task_sends_from_a_forked_worker(gate: Gate, tmp_path: Path) -> None:
    env = env_of(gate, tmp_path, CELERY_BROKER_URL=gate.stage.rabbitmq_url)
    celery = [clients_python(), "-m", "celery", "--workdir", str(EXAMPLES), "--app", "celery_tasks"]
    options = ["worker", "--loglevel=INFO", "--concurrency=2", "--without-mingle", "--without-gossip"]
    with serving(*celery, *options, env=env, home=tmp_path, ready="ready."):
        chat = next(_chats)
        arguments = f'[{chat}, "from Celery"]'
        run(*celery, "call", "celery_tasks.announce", "--args", arguments, env=env, home=tmp_path)
        until(lambda: texts(gate, chat) == ["from Celery"])


def test_the_cron_scripts_exit_code_shows_success_or_failure(gate: Gate, tmp_path: Path) -> None:
    env, chat, script = env_of(gate, tmp_path), next(_chats), str(EXAMPLES / "cron_report.py")
    for _ in range(2):  # the second run of a day does not send a second report
        assert run(clients_python(), script, str(chat), env=env, home=tmp_path) == "message 1\n"
    assert len(texts(gate, chat)) == 1
    env["FLOODGATE_RABBITMQ_URL"] = UNREACHABLE
    failed = subprocess.run([clients_python(), script, "1"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("bot", ["ptb_bot.py", "aiogram_bot.py"])
def test_a_bot_with_only_its_base_url_changed_answers(gate: Gate, bot: str, tmp_path: Path) -> None:
    user = next(_chats)
    env = env_of(gate, tmp_path)
    process = subprocess.Popen(
        [clients_python(), str(EXAMPLES / bot)], env=env, cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    try:
        gate.stage.control.inject_updates(BOT_ID, [{"user": user, "text": "hello"}])
        until(lambda: texts(gate, user) == ["You said: hello"], 30)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def test_the_assistant_shows_its_answer_while_it_writes_it(gate: Gate, tmp_path: Path) -> None:
    user, control = next(_chats), gate.stage.control
    command = [clients_python(), str(EXAMPLES / "assistant_aiogram.py")]
    with subprocess.Popen(command, env=env_of(gate, tmp_path), cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        try:
            control.inject_updates(BOT_ID, [{"user": user, "text": "why?"}])
            until(lambda: control.shown(BOT_ID, user).draft, 90)  # aiogram is slow to import
            (message,) = until(lambda: [m for m in control.shown(BOT_ID, user).messages if "entities" in m], 30)
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            process.kill()
    assert message["text"].startswith("You asked\n\nwhy?\n\nA model that runs on your machine")
    assert "pre" in [entity["type"] for entity in message["entities"]]


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix == ".py" or path.is_dir()]
    assert [name for name in names if name not in listed and not name.startswith("__")] == []
