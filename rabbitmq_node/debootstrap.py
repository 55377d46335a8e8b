"""Installs RabbitMQ 4 into a cache folder on a Debian or Ubuntu host. The host itself gets at most debootstrap.

debootstrap creates a minimal Debian tree of a suite that has RabbitMQ 4: 400 MB of disk and about half a minute, once.
The tree is built under a temporary name and then renamed, so an existing tree is always complete. A lock file makes a
second caller wait for the first one. An interrupted build leaves a folder that the next build removes, after unmounting
what debootstrap mounted there; if that fails, it removes nothing.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rabbitmq_node.errors import InstallError

HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
BUILD_SECONDS = 900.0
APT_SECONDS = 600.0
LOG_TAIL_LINES = 15


def cache_folder() -> Path:
    """The folder of the trees."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "floodgate", "rabbitmq")


def tree(version: str, suite: str) -> Path:
    """Return the Debian tree with a version of RabbitMQ, creating it if necessary.

    Raises:
        InstallError: it cannot be created.
    """
    root = cache_folder() / version
    if root.exists():
        return root
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _locked(cache_folder() / f"{version}.lock"):
        if not root.exists():
            _build(root, version, suite)
    return root


def _build(root: Path, version: str, suite: str) -> None:
    _say(f"Installing RabbitMQ {version} into {root} (once; about a minute, 400 MB)")
    _need_debootstrap()
    unfinished = root.with_name(f"{root.name}.unfinished")
    _remove(unfinished)
    _debootstrap(unfinished, suite)
    unfinished.chmod(0o755)  # the server does not run as root, and must be able to enter
    (unfinished / "etc/hosts").write_text(HOSTS)
    shutil.rmtree(unfinished / "var/cache/apt/archives", ignore_errors=True)
    unfinished.rename(root)


def _need_debootstrap() -> None:
    if shutil.which("debootstrap", path=_path()):
        return
    _say("Installing debootstrap")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    packages = ["debootstrap", "debian-archive-keyring", "ca-certificates"]
    _run(["apt-get", "-q", "update"], environment, APT_SECONDS)
    _run(["apt-get", "-qy", "install", "--no-install-recommends", *packages], environment, APT_SECONDS)


def _debootstrap(root: Path, suite: str) -> None:
    mirrors = [*_apt_mirrors(), None]  # None: debootstrap's own default
    for mirror in mirrors:
        command = ["debootstrap", "--variant=minbase", "--include=rabbitmq-server", suite, str(root)]
        try:
            _run([*command, mirror] if mirror else command, _environment(), BUILD_SECONDS)
        except InstallError as failed:
            _remove(root)
            if mirror is mirrors[-1]:
                raise
            _say(f"{mirror} does not have it ({str(failed).splitlines()[0]}); trying the next mirror")
        else:
            return


def _apt_mirrors() -> list[str]:
    """The Debian mirrors of this host's own packages. Behind a firewall, often only these can be reached."""
    listed = _output(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"])
    uris = (line.split(" ", 1)[1] for line in listed.splitlines() if line.startswith("Debian "))
    return list(dict.fromkeys(uri.rstrip("/") for uri in uris if "security" not in uri))


def _environment() -> dict[str, str]:
    """This process's environment with apt's proxy, because debootstrap's downloads ignore apt's settings."""
    environment = {**os.environ, "PATH": _path(), "LC_ALL": "C"}
    for name in ("http", "https"):
        answer = _output(["apt-config", "dump", f"Acquire::{name}::Proxy"])
        proxy = re.search(r'"(.+)"', answer)
        if proxy and proxy.group(1) != "DIRECT":
            environment.setdefault(f"{name}_proxy", proxy.group(1))
    return environment


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def _remove(folder: Path) -> None:
    if not folder.exists():
        return
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((m for m in mounted if Path(m).is_relative_to(folder)), reverse=True):
        _run(["umount", point], dict(os.environ), APT_SECONDS)  # an interrupted debootstrap's /proc; raises if in use
    shutil.rmtree(folder)


def _run(command: list[str], environment: dict[str, str], seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise InstallError(f"{command[0]} did not finish within {seconds:.0f} s: check the network.") from late
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-LOG_TAIL_LINES:])
        raise InstallError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{tail}")


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=APT_SECONDS, check=False)
    except OSError:
        return ""
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it when this process ends, in whatever way
        yield


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
