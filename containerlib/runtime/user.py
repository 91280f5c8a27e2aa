"""Who a container runs as: reading `--user` and `--group-add`, and looking names up in the image's files.

What consists of digits is a number and never looked up as a name, everything else must look like a name;
so no file of an image can turn a number, or something that resembles one, into another user. This module
touches no disk: the caller reads ``/etc/passwd`` and ``/etc/group`` below the root of the container, at
most 10 MiB of each, and passes the bytes. In: text and bytes; out: a `ResolvedUser`.

Source: passwd(5), group(5), credentials(7); OCI image-spec, "User" of the image configuration.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_ID", "ResolvedUser", "UserRequest", "parse_user", "resolve_user"]

MAX_ID = 2**32 - 2  # the number above it is (uid_t)-1, which means "leave as it is" to setresuid(2)

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*\$?"
_MAX_DIGITS = 10
_MAX_GROUPS = 65536  # NGROUPS_MAX
_MAX_LINE = 65536
_MAX_LINES = 1 << 18
_CONTROL = bytes(range(32)) + b"\x7f"

_USER_FILE = "/etc/passwd"
_GROUP_FILE = "/etc/group"


class UserRequest(NamedTuple):
    """A user as asked for.

    Attributes:
        text: What was parsed.
        user: Number, or name to be looked up; None if nothing was asked for.
        group: The same for the primary group.
    """

    text: str
    user: int | str | None = None
    group: int | str | None = None


class ResolvedUser(NamedTuple):
    """The credentials of the first process.

    Attributes:
        uid: User.
        gid: Primary group.
        groups: What to call setgroups(2) with: sorted, without duplicates, and with the primary group.
        home: An absolute path, ``/`` if the image does not say.
        name: Name of the user if the image has one for this number.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str | None


class _Account(NamedTuple):
    """What matters of a line of the passwd file."""

    name: bytes
    uid: int
    gid: int
    home: bytes


def parse_user(text: str) -> UserRequest:
    """Read a user in the form of `--user` and of the image configuration.

    Args:
        text: Nothing, ``user`` or ``user:group``, each a name or a number.

    Raises:
        InvalidOption: A part is neither a number from 0 to 4294967294 nor a name. There is no other
            spelling of a number: neither ``+0`` nor ``0x0`` nor ``1e3`` nor anything with spaces.
    """
    if not text:
        return UserRequest("")
    user, colon, group = text.partition(":")
    return UserRequest(
        text,
        _number_or_name(user, option="user", text=text),
        _number_or_name(group, option="user", text=text) if colon else None,
    )


def resolve_user(
    request: UserRequest, *, passwd: bytes | None, group: bytes | None, group_add: Sequence[str] = ()
) -> ResolvedUser:
    """Look up what `request` leaves open.

    No user is 0:0. A number without a line in the passwd file is itself, with group 0 and home ``/``. The
    groups that the group file puts a user into count only if no group was asked for. Of several lines for
    one name or number the first holds; malformed lines, and those over 64 KiB, are as if not there.

    Args:
        request: From `parse_user`.
        passwd: Content of the passwd file, or None if the image has none.
        group: Content of the group file, or None.
        group_add: Further groups, names or numbers.

    Raises:
        InvalidOption: A name is not in its file, a file has more lines than any real one, or there would
            be more groups than the kernel allows.
    """
    account = _find_account(request, passwd)
    gid = _primary_group(request, account, group)
    groups = {gid, *(_find_group(text, group) for text in group_add)}
    if account and request.group is None:
        groups.update(_memberships(account.name, group))
    if len(groups) > _MAX_GROUPS:
        raise InvalidOption(
            "user", request.text, f"{_GROUP_FILE} puts it into more than {_MAX_GROUPS} groups"
        )
    uid = account.uid if account else request.user or 0
    name = _decode(account.name) if account else None
    return ResolvedUser(int(uid), gid, tuple(sorted(groups)), _home(account), name)


def _number_or_name(part: str, *, option: str, text: str) -> int | str:
    if part.isascii() and part.isdigit():
        number = _identity(part.encode())
        if number is None:
            raise InvalidOption(option, text, f"numbers of users and groups go from 0 to {MAX_ID}")
        return number
    if not re.fullmatch(_NAME, part):
        reason = (
            f"{part!r} is neither a number nor a name (letters, digits and _.-, not beginning with a digit)"
        )
        raise InvalidOption(option, text, reason)
    return part


def _identity(digits: bytes) -> int | None:
    """Read a number of a user or group; None if it is none."""
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    number = int(digits)
    return number if number <= MAX_ID else None


def _find_account(request: UserRequest, passwd: bytes | None) -> _Account | None:
    name = request.user.encode() if isinstance(request.user, str) else None
    for fields in _records(passwd, _USER_FILE):
        account = _account(fields)
        if account and (account.name == name if name else account.uid == (request.user or 0)):
            return account
    if name:
        raise _unknown("user", request.text, name.decode(), _USER_FILE)
    return None


def _account(fields: list[bytes]) -> _Account | None:
    # name:password:uid:gid:comment:home:shell, of which files in the wild leave out the end.
    if not 4 <= len(fields) <= 7:  # noqa: PLR2004  # counted in the line above
        return None
    uid, gid = _identity(fields[2]), _identity(fields[3])
    if uid is None or gid is None:
        return None
    return _Account(fields[0], uid, gid, fields[5] if len(fields) > 5 else b"")  # noqa: PLR2004  # the same


def _groups(group: bytes | None) -> Iterator[tuple[bytes, int, bytes]]:
    # name:password:gid:members
    for fields in _records(group, _GROUP_FILE):
        gid = _identity(fields[2]) if 3 <= len(fields) <= 4 else None  # noqa: PLR2004  # as above
        if gid is not None:
            yield fields[0], gid, fields[3] if len(fields) > 3 else b""  # noqa: PLR2004  # as above


def _primary_group(request: UserRequest, account: _Account | None, group: bytes | None) -> int:
    if isinstance(request.group, str):
        return _look_up_group(request.group, group, option="user", text=request.text)
    if request.group is not None:
        return request.group
    return account.gid if account and request.text else 0


def _find_group(text: str, group: bytes | None) -> int:
    wanted = _number_or_name(text, option="group_add", text=text)
    return wanted if isinstance(wanted, int) else _look_up_group(wanted, group, option="group_add", text=text)


def _look_up_group(name: str, group: bytes | None, *, option: str, text: str) -> int:
    wanted = name.encode()
    for found, gid, _ in _groups(group):
        if found == wanted:
            return gid
    raise _unknown(option, text, name, _GROUP_FILE)


def _memberships(name: bytes, group: bytes | None) -> Iterator[int]:
    for _, gid, members in _groups(group):
        if name in members and name in members.split(b","):
            yield gid


def _records(content: bytes | None, path: str) -> Iterator[list[bytes]]:
    """Give the fields of each line that has a name and no control characters.

    One line at a time: ten million of them must not become ten million objects at once.
    """
    content = content or b""
    start, end = 0, len(content)
    for _ in range(_MAX_LINES):
        if start >= end:
            return
        stop = content.find(b"\n", start)
        stop = end if stop < 0 else stop
        if start < stop <= start + _MAX_LINE:
            line = content[start:stop].rstrip(b"\r")
            fields = line.split(b":")
            if fields[0] and line.translate(None, _CONTROL) == line:
                yield fields
        start = stop + 1
    if start < end:
        raise InvalidOption("user", path, f"the image's {path} has more than {_MAX_LINES} lines")


def _unknown(option: str, text: str, name: str, path: str) -> InvalidOption:
    reason = f"the image's {path} has no {name!r}; use a number, or a name that is in that file"
    return InvalidOption(option, text, reason)


def _home(account: _Account | None) -> str:
    return _decode(account.home) if account and account.home.startswith(b"/") else "/"


def _decode(name: bytes) -> str:
    # The same that os.fsdecode does under UTF-8, so that any bytes reach the container unchanged.
    return name.decode("utf-8", "surrogateescape")
