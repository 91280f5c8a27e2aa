from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from containerlib.errors import InvalidOption
from containerlib.runtime.user import MAX_ID, ResolvedUser, UserRequest, parse_user, resolve_user

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
web:x:1000:1001:Web:/srv/web:/bin/sh
web:x:0:0:second:/root:/bin/sh
twin:x:1000:5:the same number:/elsewhere:/bin/sh
short:x:7:8
relative:x:8:8::home:/bin/sh
machine$:x:9:9::/m:/bin/sh
last:x:4294967294:4294967294::/last:/bin/sh"""

GROUP = b"""\
root:x:0:
wheel:x:10:root,admin
web:x:1001:
web:x:0:
video:x:44:web,daemon
audio:x:29:daemon,webmaster,web
docker:x:999:webmaster
nobody:x:65534"""

# Strings that are nearly numbers, as names of users and groups with number 0.
NEAR_NUMBERS = [
    "-1",
    "+0",
    " 0",
    "0 ",
    "0x0",
    "0x10",
    "1e3",
    "1_000",
    "0o0",
    "0b1",
    "1.0",
    "4294967295",
    "4294967296",
    "9999999999",
    "18446744073709551616",
    "2147483648:4294967296",
    "\u0660",
    "\uff10",
    "\u00b2",
    "0\n",
    "\n0",
    "0\x00",
    "\t0",
    "9" * 5000,
]
TRAP_PASSWD = b"".join(f"{name}:x:0:0::/root:/bin/sh\n".encode() for name in [*NEAR_NUMBERS, "1000", "007x"])
TRAP_GROUP = b"".join(f"{name}:x:0:\n".encode() for name in NEAR_NUMBERS)


def resolve(
    text: str,
    *,
    passwd: bytes | None = PASSWD,
    group: bytes | None = GROUP,
    group_add: tuple[str, ...] = (),
) -> ResolvedUser:
    """Parse and resolve in one step."""
    return resolve_user(parse_user(text), passwd=passwd, group=group, group_add=group_add)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", UserRequest("")),
        ("web", UserRequest("web", "web")),
        ("0", UserRequest("0", 0)),
        ("1000", UserRequest("1000", 1000)),
        ("4294967294", UserRequest("4294967294", MAX_ID)),
        ("2147483648:0", UserRequest("2147483648:0", 2147483648, 0)),
        ("web:video", UserRequest("web:video", "web", "video")),
        ("1000:video", UserRequest("1000:video", 1000, "video")),
        ("web:44", UserRequest("web:44", "web", 44)),
        ("_a.b-c9$", UserRequest("_a.b-c9$", "_a.b-c9$")),
    ],
)
def test_forms(text: str, expected: UserRequest) -> None:
    """Names and numbers mix freely, and what consists of digits is a number."""
    assert parse_user(text) == expected


@pytest.mark.parametrize("text", NEAR_NUMBERS)
@pytest.mark.parametrize("pattern", ["{}", "{}:0", "0:{}", "web:{}"])
def test_near_numbers_are_never_looked_up(text: str, pattern: str) -> None:
    """Neither a number out of range nor something like a number is taken as a name that the image defines."""
    with pytest.raises(InvalidOption):
        resolve(pattern.format(text), passwd=TRAP_PASSWD, group=TRAP_GROUP)


@pytest.mark.parametrize("text", NEAR_NUMBERS)
def test_near_numbers_are_no_groups_to_add(text: str) -> None:
    """The same holds for groups to add."""
    with pytest.raises(InvalidOption) as caught:
        resolve("0", group=TRAP_GROUP, group_add=(text,))
    assert caught.value.option == "group_add"
    assert caught.value.value == text


@pytest.mark.parametrize(
    "text",
    [
        ":",
        "web:",
        ":web",
        "a:b:c",
        "we b",
        "web/",
        "w\u00e9b",
        "1web",
        "-web",
        ".web",
        "$",
        "a$b",
        "web\n",
        "a\x00",
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    """What is neither a number nor a name is an error that quotes it."""
    with pytest.raises(InvalidOption) as caught:
        parse_user(text)
    assert caught.value.option == "user"
    assert caught.value.value == text


@pytest.mark.parametrize("text", ["1000", "4294967294", "1", "07"])
def test_a_number_is_not_looked_up_as_a_name(text: str) -> None:
    """A line whose name is a number does not change what that number means."""
    user = resolve(text, passwd=b"%s:x:0:0::/root:/bin/sh\n" % text.encode())
    assert (user.uid, user.gid, user.home, user.name) == (int(text), 0, "/", None)


@given(text=st.text(alphabet="0123456789+-xe_ :\t\u0660", max_size=14))
def test_root_only_if_it_says_so(text: str) -> None:
    """No text of digits and signs becomes uid 0 except zeros and nothing, whatever the image's files say."""
    assume(not text or text[0] not in "ex_")  # these begin names, and names may mean root
    passwd = b"%s:x:0:0::/root:/bin/sh\n" % text.encode()
    try:
        user = resolve(text, passwd=passwd, group=passwd)
    except InvalidOption:
        return
    assert user.uid != 0 or not text.partition(":")[0].strip("0")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("root", ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("0", ResolvedUser(0, 0, (0, 10), "/root", "root")),
        ("0:0", ResolvedUser(0, 0, (0,), "/root", "root")),
        ("web", ResolvedUser(1000, 1001, (29, 44, 1001), "/srv/web", "web")),
        ("1000", ResolvedUser(1000, 1001, (29, 44, 1001), "/srv/web", "web")),
        ("web:web", ResolvedUser(1000, 1001, (1001,), "/srv/web", "web")),
        ("web:video", ResolvedUser(1000, 44, (44,), "/srv/web", "web")),
        ("1000:7777", ResolvedUser(1000, 7777, (7777,), "/srv/web", "web")),
        ("5555", ResolvedUser(5555, 0, (0,), "/", None)),
        ("5555:video", ResolvedUser(5555, 44, (44,), "/", None)),
        ("twin", ResolvedUser(1000, 5, (5,), "/elsewhere", "twin")),
        ("short", ResolvedUser(7, 8, (8,), "/", "short")),
        ("relative", ResolvedUser(8, 8, (8,), "/", "relative")),
        ("machine$", ResolvedUser(9, 9, (9,), "/m", "machine$")),
        ("last", ResolvedUser(MAX_ID, MAX_ID, (MAX_ID,), "/last", "last")),
    ],
)
def test_resolution(text: str, expected: ResolvedUser) -> None:
    """Names and numbers get what Docker gives them; of several lines the first counts."""
    assert resolve(text) == expected


@pytest.mark.parametrize("text", ["", "0", "1000", "1000:44"])
def test_numbers_need_no_files(text: str) -> None:
    """An image without passwd and group files takes numbers."""
    user = resolve(text, passwd=None, group=None)
    assert (user.home, user.name) == ("/", None)
    assert user.groups == (user.gid,)


@pytest.mark.parametrize(
    ("text", "named"), [("nosuch", "'nosuch'"), ("nosuch:0", "'nosuch'"), ("web:nosuch", "'nosuch'")]
)
@pytest.mark.parametrize("files", [PASSWD, None])
def test_unknown_names_are_refused(text: str, named: str, files: bytes | None) -> None:
    """A name that the image lacks is an error with a remedy, never another user."""
    with pytest.raises(InvalidOption, match=f"{named}.*use a number") as caught:
        resolve(text, passwd=PASSWD if text.startswith("web") else files, group=files and GROUP)
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("text", "group_add", "expected"),
    [
        ("web", ("video",), (29, 44, 1001)),
        ("web", ("docker", "5"), (5, 29, 44, 999, 1001)),
        ("web:video", ("docker", "44"), (44, 999)),
        ("5555", ("web", "4294967294"), (0, 1001, MAX_ID)),
        ("5555:0", ("nobody",), (0, 65534)),
    ],
)
def test_added_groups(text: str, group_add: tuple[str, ...], expected: tuple[int, ...]) -> None:
    """Added groups join those of the user, and the primary group is always among them."""
    assert resolve(text, group_add=group_add).groups == expected


@pytest.mark.parametrize("text", ["nosuch", "", "4294967295", "a b", "web:video"])
def test_bad_groups_to_add_are_refused(text: str) -> None:
    """A group to add is a number or a name in the image's file."""
    with pytest.raises(InvalidOption) as caught:
        resolve("web", group_add=(text,))
    assert caught.value.option == "group_add"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"# evil",
        b"evil",
        b"evil:x:0",
        b"evil:x::0::/:/bin/sh",
        b"evil:x:0x0:0::/:/bin/sh",
        b"evil:x:-1:0::/:/bin/sh",
        b"evil:x:4294967295:0::/:/bin/sh",
        b"evil:x:0:4294967296::/:/bin/sh",
        b"evil:x: 0:0::/:/bin/sh",
        b"evil:x:0:0::/:/bin/sh:more",
        b"evil:x:0:0:\x00:/:/bin/sh",
        b"evil:x:0:0::/\x1b[31m:/bin/sh",
        b"evil:x:0:0::/" + b"a" * 65536 + b":/bin/sh",
        b":x:0:0::/:/bin/sh",
        b"+::::::",
        b"\xff\xfe",
    ],
)
def test_malformed_lines_are_skipped(line: bytes) -> None:
    """A line that is not as passwd(5) has it is as if not there, and the next one counts."""
    passwd = line + b"\nevil:x:1234:1234::/e:/bin/sh\r\n"
    assert resolve("evil", passwd=passwd) == ResolvedUser(1234, 1234, (1234,), "/e", "evil")


@pytest.mark.parametrize(
    "line", [b"evil", b"evil:x", b"evil:x:", b"evil:x:0:a:b", b"evil:x:+0:", b"evil:x:0:\x07"]
)
def test_malformed_groups_are_skipped(line: bytes) -> None:
    """The same holds for group(5)."""
    assert resolve("0:evil", group=line + b"\nevil:x:77:").gid == 77


def test_bytes_that_are_no_text_survive() -> None:
    """A home directory is passed on byte for byte."""
    user = resolve("a", passwd=b"a:x:1:1::/h\xff\xe9:/bin/sh")
    assert user.home.encode("utf-8", "surrogateescape") == b"/h\xff\xe9"


def test_too_many_groups_are_refused() -> None:
    """More groups than setgroups(2) takes are an error: leaving some out could grant what they deny."""
    group = b"".join(b"g%d:x:%d:web\n" % (i, i) for i in range(65537))
    with pytest.raises(InvalidOption, match="65536"):
        resolve("web", group=group)
    assert len(resolve("web:web", group=b"web:x:5:\n" + group).groups) == 1


@pytest.mark.parametrize(
    "line", [b"\n", b"a\n", b"a::1:1\n", b"a::1:1::/:\n", b":" * 60000 + b"\n", b"x" * (10 << 20)]
)
def test_huge_files_are_bounded(line: bytes) -> None:
    """Ten million lines take neither seconds nor hundreds of megabytes."""
    content = (line * ((10 << 20) // len(line) + 1))[: 10 << 20]
    tracemalloc.start()
    begin = time.monotonic()
    try:
        with pytest.raises(InvalidOption):
            resolve("web", passwd=content, group=content)
        with pytest.raises(InvalidOption):
            resolve("0:web", passwd=PASSWD, group=content)
    finally:
        seconds = time.monotonic() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seconds < 10  # tracing makes it several times slower
    assert peak < 16 << 20
