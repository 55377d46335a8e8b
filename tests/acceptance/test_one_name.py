"""Installed, Floodgate is a single package: a project may have its own packages with the names of our folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from floodgate.broker.settings.model import Settings
from tests.acceptance.gateway.programs import clients_python
from tests.acceptance.stage import TOKEN, Stage
from tests.processes import ROOT, FloodgateProcess
from tests.waiting import until

pytestmark = pytest.mark.checkout  # it builds wheel and sdist
FOLDERS = ("broker", "actors", "producer", "tests", "rabbitmq", "rabbitmq_node", "fake_telegram", "benchmarks")
BOT_ID = int(TOKEN.partition(":")[0])
ENQUEUE = "from floodgate import Client; Client().send_message(42, 'from a program')"
CALL = (
    "import json, sys, urllib.request as web; print(web.urlopen(web.Request("
    "f'{sys.argv[1]}/bot{sys.argv[2]}/sendMessage', json.dumps({'chat_id': 42, 'text': 'by the gateway'}).encode(),"
    " {'Content-Type': 'application/json'})).read().decode())"
)
FIXTURES = """
pytest_plugins = ["floodgate.testing.fixtures"]

def test_it(floodgate_client):
    import floodgate
    floodgate.Client().send_message(1, "hi")
    assert [job.method for job in floodgate_client.jobs] == ["sendMessage"]
"""


def run(*command: str, cwd: Path, **env: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOODGATE_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=kept | env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def site_of(python: Path) -> str:
    return run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=python.parent).strip()


def wheel_of(source: Path, target: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target), cwd=source)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of this checkout and the wheel of its sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {"wheel": wheel_of(ROOT, folder / "wheel"), "sdist": wheel_of(unpacked, folder / "sdist")}


@pytest.fixture(scope="module")
def python(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with Floodgate and, from our environment, the libraries it needs."""
    venv = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", str(venv), cwd=venv)
    interpreter = venv / "bin" / "python"
    site = Path(site_of(interpreter))
    with zipfile.ZipFile(wheels["wheel"]) as wheel:
        wheel.extractall(site)
    # As a path it provides only the libraries: links to checkouts in it are not followed.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return interpreter


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its own packages under all those names."""
    folder = tmp_path / "project"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("MINE = True\n")
    return folder


@pytest.fixture
def settled(stage: Stage) -> Stage:
    stage.extra |= {"FLOODGATE_BOTS": "", "FLOODGATE_BOT_TOKEN": TOKEN, "PYTHONPATH": ""}
    return stage


def start(stage: Stage, python: Path, project: Path, *arguments: str, ready: str) -> FloodgateProcess:
    name = "-".join(word.strip("-").partition(":")[0] for word in arguments)
    process = FloodgateProcess(*arguments, env=stage.env, home=project, name=name, python=str(python))
    return stage.keep(process.start(ready))


def test_wheel_and_sdist_install_the_same_single_package(wheels: dict[str, Path]) -> None:
    files = {
        kind: {each.filename: each.CRC for each in zipfile.ZipFile(wheel).infolist()} for kind, wheel in wheels.items()
    }
    assert files["wheel"] == files["sdist"]
    tops = {name.partition("/")[0] for name in files["wheel"]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"floodgate"}
    assert "floodgate/py.typed" in files["wheel"]


def test_a_worker_sends_what_a_program_and_the_gateway_enqueue(settled: Stage, python: Path, project: Path) -> None:
    start(settled, python, project, "worker", ready="worker ready")
    gateway = start(settled, python, project, "gateway", ready="Application startup complete")
    run(str(python), "-c", ENQUEUE, cwd=project, **settled.env)
    until(lambda: settled.sent() == ["from a program"])
    url = gateway.said("The gateway is ready at ").rpartition(" ")[2]
    assert json.loads(run(str(python), "-c", CALL, url, TOKEN, cwd=project))["ok"]
    assert settled.sent()[1:] == ["by the gateway"]


def test_updates_are_received_and_handled(settled: Stage, python: Path, project: Path) -> None:
    (project / "bot.py").write_text((ROOT / "examples" / "echo_bot.py").read_text())
    start(settled, python, project, "worker", ready="worker ready")
    start(settled, python, project, "worker", "--updates", "bot:application", ready="worker ready")
    start(settled, python, project, "updates", ready="receiver ready")
    settled.control.inject_updates(BOT_ID, [{"user": 42, "text": "good morning"}])
    until(lambda: "good morning" in settled.sent(), 30)


def test_the_pytest_fixtures_work(python: Path, project: Path) -> None:
    (project / "test_mine.py").write_text(FIXTURES)
    run(str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py", cwd=project)


def test_a_client_works_under_manage_py(settled: Stage, python: Path, project: Path) -> None:
    shop = ROOT / "examples" / "django_shop"
    env = settled.env | {
        "PYTHONPATH": os.pathsep.join([str(project), site_of(python)]),
        "SHOP_HOME": str(project),
    }
    manage = [clients_python(), str(shop / "manage.py")]
    run(*manage, "migrate", "--verbosity=0", cwd=project, **env)
    program = "import broker; assert broker.MINE; from shop.messages import order_placed; order_placed(1, 42)"
    run(*manage, "shell", "-c", program, cwd=project, **env)
    start(settled, python, project, "worker", ready="worker ready")
    until(lambda: settled.sent() == ["Order 1 is placed"])


def test_a_users_type_checker_sees_the_types(python: Path, project: Path) -> None:
    (project / "typed.py").write_text("from floodgate import Client\n\nreveal_type(Client().send_message(1, 'hi'))\n")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(python), "--cache-dir", "cache", "typed.py"]
    assert 'Revealed type is "floodgate.broker.messages.job.Job"' in run(*command, cwd=project)


def test_settings_come_from_the_package(python: Path, project: Path) -> None:
    found = run(str(python), "-c", "import floodgate; print(floodgate.Settings.__module__)", cwd=project).strip()
    assert found == Settings.__module__ == "floodgate.broker.settings.model"
