"""Giving privileges back once the interface is open: what parses hostile packets has none."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pwd
import struct
from typing import Final

from veilwatch.errors import VeilwatchError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


def default_user() -> str | None:
    """Return the user who called sudo, None where nobody did or root itself."""
    caller = os.environ.get("SUDO_UID", "")
    if os.getuid() != 0 or not caller.isdecimal() or int(caller) == 0:
        return None
    try:
        return pwd.getpwuid(int(caller)).pw_name
    except KeyError:
        return None


def drop_privileges(user: str | None) -> str:
    """Become `user`, keep no capability, and let no program that is started have more.

    Sockets and files that are open stay so. Of a process that does not change its user, threads
    that run already keep their capabilities: call this early.

    Parameters
    ----------
    user
        Name of the user to become; None to stay who we are.

    Returns
    -------
    str
        What to tell the user: empty, or that root stays root.

    Raises
    ------
    VeilwatchError
        If there is no such user or we may not become it.
    """
    if user is not None:
        _become(user)
    elif os.geteuid() == 0:
        return "runs as root: name another user with --user"
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("@Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(6 * 4)  # effective, permitted, inheritable, twice
    _call("capset", header, nothing)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return ""


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send us a signal when the process that started us ends.

    One that has ended already, while we were loading, is noticed as well: the signal comes at once.
    To be called after `drop_privileges`: a change of user undoes it.
    """
    _call("prctl", _PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        os.kill(os.getpid(), signal_number)


def _become(user: str) -> None:
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise VeilwatchError("no such user", where=user, hint="give --user NAME") from error
    if os.geteuid() == entry.pw_uid:
        return
    try:
        os.setgroups(os.getgrouplist(user, entry.pw_gid))
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError as error:
        raise VeilwatchError(
            f"cannot become {user}", hint="only root can; leave --user out"
        ) from error


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise VeilwatchError(f"cannot drop privileges: {os.strerror(number)}", where=function)
