"""The ordinary user whose jobs run on the cluster: who it is, and how to run something as that user."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import containers
from cluster.layout import ClusterError, Layout

DEFAULT_USER = "samebits"
PASSED_ON = ("TERM", "COLORTERM", "NO_COLOR", "LANG", "LC_ALL", "TZ", "COLUMNS", "LINES")
SITE = "testcluster"


def default_name() -> str:
    """Who called sudo; else a system user that `start` makes."""
    caller = os.environ.get("SUDO_USER", "")
    return caller if caller not in {"", "root"} else DEFAULT_USER


def ensure(name: str, layout: Layout) -> pwd.struct_passwd:
    """The account, made if it is the default one. Raises ClusterError."""
    if name == DEFAULT_USER and not _exists(name):
        argv = [
            "useradd",
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            str(layout.home),
            "--shell",
            "/bin/bash",
            name,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if not _exists(name):  # another cluster may have been quicker; that is as good
            raise ClusterError(f"`{' '.join(argv)}` failed with {done.returncode}: {done.stderr.strip()}")
    if not _exists(name):
        raise ClusterError(
            f"there is no user `{name}` on this machine. Leave out --user, or make it: useradd -m {name}"
        )
    account = pwd.getpwnam(name)
    if account.pw_uid == 0:
        raise ClusterError("jobs run as an ordinary user, and root is none: choose another --user.")
    return account


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def variables(layout: Layout, account: pwd.struct_passwd) -> dict[str, str]:
    """The whole environment of the user: nothing of root's comes along but the terminal and the language."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {
        "HOME": str(layout.home),
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "PATH": f"{layout.environment}/bin:{layout.programs}:/usr/local/bin:/usr/bin:/bin",
        "SLURM_CONF": str(layout.conf),
        "SAMEBITS_SITE": SITE,
        "VIRTUAL_ENV": str(layout.environment),
        **containers.variables(layout),
    }


def become(account: pwd.struct_passwd) -> dict[str, Any]:
    """Arguments of subprocess.run that make it run as the account."""
    if os.geteuid() == account.pw_uid:
        return {}
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups, "umask": 0o022}


def run(
    layout: Layout,
    account: pwd.struct_passwd,
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as the user, with `given` as its standard input. Any exit code is an answer."""
    return subprocess.run(
        list(argv),
        cwd=cwd or layout.home,
        env=variables(layout, account),
        capture_output=True,
        text=True,
        check=False,
        input=given,
        **become(account),
    )


def replace(layout: Layout, account: pwd.struct_passwd, argv: Sequence[str], cwd: Path) -> None:
    """Become a program of the user's; returns only by raising OSError (a program that is missing) or ClusterError."""
    environment = variables(layout, account)
    found = shutil.which(argv[0], path=environment["PATH"])
    if os.geteuid() != account.pw_uid:
        os.setgroups(os.getgrouplist(account.pw_name, account.pw_gid))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        os.umask(0o022)
    try:
        os.chdir(cwd)
    except OSError as error:
        raise ClusterError(f"{account.pw_name} cannot enter {cwd}: {error.strerror}") from error
    os.execve(found or argv[0], list(argv), environment)  # noqa: S606 - no shell is wanted
