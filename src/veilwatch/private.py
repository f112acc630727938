"""Whether a folder is ours alone: nobody else can change what lies in it, or what its path means.

For what is executed when it is read. Machine code in a cache is that: Numba keeps an index of
pickles beside it, and who can write to the folder, or put another in its place, decides what runs.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_STEPS: Final = 256
"""Most folders and links of one path; Linux itself follows at most 40 links."""

_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def why_not_private(folder: Path) -> str:
    """Return who else could change a folder's contents or its meaning, '' if nobody.

    The folder has to be ours and closed to others' writing. Each folder above it, and that of each
    symbolic link on the way, has to belong to us or to root and be closed as well; a sticky one,
    such as /tmp, is closed to the renaming of what is ours.
    """
    me = os.geteuid()
    try:
        steps = list(_steps(folder.absolute()))
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    last, about = steps[-1]
    if about.st_uid != me:
        return f"{last} belongs to {_user(about.st_uid)}"
    if about.st_mode & _OTHERS:
        return f"others may write to {last}"
    for place, about in steps[:-1]:
        if about.st_uid not in (0, me):
            return f"{place} belongs to {_user(about.st_uid)}"
        if stat.S_ISLNK(about.st_mode):
            continue
        writers = about.st_mode & _OTHERS
        if writers == stat.S_IWGRP and _group_is_mine(about.st_gid):
            continue
        if writers and not about.st_mode & stat.S_ISVTX:
            return f"others may write to {place}, above {folder.name}"
    return ""


def _steps(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and symbolic link that decides where a path leads, the place itself last.

    Raises
    ------
    OSError
        If something is missing or there are too many steps.
    """
    here = Path("/")
    yield here, here.lstat()
    todo = list(path.parts[1:])
    for _ in range(MAX_STEPS):
        if not todo:
            return
        part = todo.pop(0)
        if part == "..":
            here = here.parent
            continue
        at = here / part
        about = at.lstat()
        yield at, about
        if stat.S_ISLNK(about.st_mode):
            target = at.readlink()
            here = Path("/") if target.is_absolute() else here
            todo = [name for name in target.parts if name != "/"] + todo
        else:
            here = at
    raise OSError(f"more than {MAX_STEPS} folders and links")


def _group_is_mine(number: int) -> bool:
    """Whether a group is the one that many systems give each user alone."""
    try:
        group, user = grp.getgrgid(number), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
