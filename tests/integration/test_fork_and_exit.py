"""What programs do to connections: fork with them, end without closing them. Each runs in its own process."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.draining import drain
from tests.proxy import Proxy
from tests.services import Vhost

PRELUDE = """
import os, sys, threading
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings

connections = Connections(Settings(rabbitmq_url=sys.argv[1], _env_file=None), "program")

def publish(name):
    connections.publisher.publish(Publication("", "mail", name.encode(), name))
"""

# As in a pre-forking server: the parent has published, and continues while its children publish.
FORK = """
publish("parent-before")
parent_link = connections._live.publishing.pika_connection
children = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        publish(f"child-{n}")
        connections.stop()
        os._exit(0)
    children.append(pid)
for n in range(20):
    publish(f"parent-{n}")
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
publish("parent-after")
assert connections._live.publishing.pika_connection is parent_link, "a child ended its parent's connection"
"""

MULTIPROCESSING = """
import multiprocessing
publish("parent-before")
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(publish, [f"child-{n}" for n in range(10)])
publish("parent-after")
"""

# A fork while another thread is inside the publisher: in the child, its locks are held by no thread.
FORK_IN_MID_CALL = """
stop = threading.Event()
def keep_publishing():
    n = 0
    while not stop.is_set():
        publish(f"parent-{n}")
        n += 1
threads = [threading.Thread(target=keep_publishing) for _ in range(3)]
for thread in threads: thread.start()
for n in range(20):
    pid = os.fork()
    if pid == 0:
        publish(f"child-{n}")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
"""

# A child that is forked while another thread imports a module waits for ever when it needs that module.
IMPORTS = """
def told(event, arguments):
    if event == "import" and threading.current_thread() is not threading.main_thread():
        print(arguments[0])
sys.addaudithook(told)
publish("first")
"""

CHILD_OUTLIVES_PARENT = """
publish("parent")
pid = os.fork()
if pid == 0:
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    targets = [os.readlink(path) for path in paths if os.path.lexists(path)]
    assert not [target for target in targets if target.startswith("socket:") or "eventpoll" in target], targets
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""

JUST_ENDS = """
publish("done")
"""

ENDS_WITH_JOBS_UNDER_WAY = """
future = connections.publisher.submit_many([Publication("", "mail", b"{}", f"job-{n}") for n in range(500)])
"""

ENDS_WHILE_NOBODY_ANSWERS = """
publish("first")
print("ready", flush=True)
sys.stdin.readline()
future = connections.publisher.submit_many([Publication("", "mail", b"{}", f"job-{n}") for n in range(500)])
"""

RAISES = """
publish("done")
raise SystemExit(7)
"""

NEVER_CONNECTED = """
assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
"""


def run(url: str, program: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program, url], capture_output=True, text=True, timeout=seconds, check=False
    )


def ids(vhost: Vhost) -> list[str]:
    return [properties.message_id for properties, _ in drain(vhost.url, "mail")]


def test_forked_children_publish_on_their_own_connections(declared: Vhost) -> None:
    done = run(declared.url, FORK)
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["parent-before", "parent-after", *(f"child-{n}" for n in range(3)), *(f"parent-{n}" for n in range(20))]
    assert sorted(ids(declared)) == sorted(expected)


def test_a_pool_of_forked_processes_can_publish(declared: Vhost) -> None:
    done = run(declared.url, MULTIPROCESSING)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(ids(declared)) == sorted(["parent-before", "parent-after", *(f"child-{n}" for n in range(10))])


def test_a_fork_during_other_threads_calls_causes_no_deadlock(declared: Vhost) -> None:
    done = run(declared.url, FORK_IN_MID_CALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert {f"child-{n}" for n in range(20)} <= set(ids(declared))


def test_the_event_loop_imports_nothing_that_a_fork_could_find_locked(declared: Vhost) -> None:
    done = run(declared.url, IMPORTS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_child_closes_all_of_its_parents_sockets(declared: Vhost) -> None:
    done = run(declared.url, CHILD_OUTLIVES_PARENT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("program", "code"), [(JUST_ENDS, 0), (RAISES, 7)])
def test_a_program_that_has_published_exits_normally(declared: Vhost, program: str, code: int) -> None:
    started = time.monotonic()
    done = run(declared.url, program)
    assert (done.returncode, done.stderr) == (code, "")
    assert ids(declared) == ["done"]
    assert time.monotonic() - started < 5


def test_a_program_that_ends_with_jobs_in_flight_waits_for_their_confirms(declared: Vhost) -> None:
    done = run(declared.url, ENDS_WITH_JOBS_UNDER_WAY)
    assert (done.returncode, done.stderr) == (0, "")
    assert ids(declared) == [f"job-{n}" for n in range(500)]


def test_a_program_whose_jobs_are_not_confirmed_ends_at_the_timeout_and_reports_it(declared: Vhost) -> None:
    with Proxy(declared.node.port) as proxy:
        command = [sys.executable, "-c", PRELUDE + ENDS_WHILE_NOBODY_ANSWERS, proxy.url(declared.url)]
        program = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        proxy.stall()
        started = time.monotonic()
        _, said = program.communicate("go on\n", timeout=30)
        assert time.monotonic() - started < 10
    assert said == "500 messages were not confirmed when the program ended; they may be lost\n"


def test_constructing_starts_nothing(declared: Vhost) -> None:
    done = run(declared.url, NEVER_CONNECTED)
    assert (done.returncode, done.stderr) == (0, "")
