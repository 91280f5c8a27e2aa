"""The texts of options: what each parser makes of good ones, and that it refuses the others with a reason."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from containerlib.cli import options
from containerlib.options import Device, Mount, RestartPolicy, Rlimit

if TYPE_CHECKING:
    from pathlib import Path

HERE = os.getcwd()

GOOD: dict[str, list[tuple[str, Any]]] = {
    "parse_size": [
        ("0", 0),
        ("4096", 4096),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("512 mib", 512 << 20),
        ("1g", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("2t", 2 << 40),
        ("1p", 1 << 50),
        ("100b", 100),
        ("1.9", 1),
        ("9007199254740993", 9007199254740993),
    ],
    "parse_memory": [("0", None), ("6m", 6 << 20)],
    "parse_swap": [("-1", -1), ("0", None), ("1g", 1 << 30)],
    "parse_number": [("0", None), ("512", 512), ("-500", -500)],
    "parse_pids": [("0", -1), ("-1", -1), ("100", 100)],
    "parse_cpus": [("0", None), ("1", 1.0), ("1.5", 1.5), (".5", 0.5)],
    "parse_seconds": [("1", 1.0), ("0.25", 0.25)],
    "parse_wait": [("0", 0.0), ("2.5", 2.5)],
    "parse_duration": [("30s", 30.0), ("1m30s", 90.0), ("500ms", 0.5), ("1h2m", 3720.0), ("1.5s", 1.5)],
    "parse_log_driver": [("local", "local"), ("none", "none")],
    "parse_log_option": [
        ("max-size=10k", ("max_bytes", 10240)),
        ("max-file=3", ("max_files", 3)),
    ],
    "parse_restart": [
        ("no", RestartPolicy()),
        ("on-failure", RestartPolicy(name="on-failure")),
        ("on-failure:3", RestartPolicy(name="on-failure", max_retries=3)),
        ("unless-stopped", RestartPolicy(name="unless-stopped")),
    ],
    "parse_mount": [
        ("type=bind,source=/srv,target=/data", Mount.bind("/srv", "/data")),
        ("type=bind,src=/srv,dst=/data,readonly", Mount.bind("/srv", "/data", read_only=True)),
        ("Type=bind,source=/srv,destination=/data,ro=true", Mount.bind("/srv", "/data", read_only=True)),
        ("type=bind,source=/srv,target=/data,readonly=false", Mount.bind("/srv", "/data")),
        ('type=bind,"source=/a,b",target=/data', Mount.bind("/a,b", "/data")),
        ("type=bind,source=./x,target=/data", Mount.bind(f"{HERE}/x", "/data")),
        ("type=bind,source=.,target=/data", Mount.bind(HERE, "/data")),
        ("type=tmpfs,target=/run", Mount.tmpfs("/run")),
        (
            "type=tmpfs,target=/run,tmpfs-size=1m,tmpfs-mode=0755",
            Mount.tmpfs("/run", size_bytes=1 << 20, mode=0o755),
        ),
    ],
    "parse_volume": [
        ("/srv:/data", Mount.bind("/srv", "/data")),
        ("/srv:/data:ro", Mount.bind("/srv", "/data", read_only=True)),
        ("/srv:/data:rw", Mount.bind("/srv", "/data")),
        (".:/data", Mount.bind(HERE, "/data")),
        ("../x:/data", Mount.bind(os.path.abspath("../x"), "/data")),
    ],
    "parse_tmpfs": [
        ("/run", Mount.tmpfs("/run")),
        ("/run:", Mount.tmpfs("/run")),
        ("/run:rw,nosuid,nodev,noexec", Mount.tmpfs("/run")),
        (
            "/run:size=64k,mode=1755,exec",
            Mount.tmpfs("/run", size_bytes=64 << 10, mode=0o1755, exec=True),
        ),
        ("/run:size=0", Mount.tmpfs("/run")),
    ],
    "parse_ulimit": [
        ("nofile=1024", Rlimit(name="nofile", soft=1024, hard=1024)),
        ("nofile=1024:4096", Rlimit(name="nofile", soft=1024, hard=4096)),
        ("core=0", Rlimit(name="core", soft=0, hard=0)),
        ("core=unlimited", Rlimit(name="core", soft=-1, hard=-1)),
        ("core=0:-1", Rlimit(name="core", soft=0, hard=-1)),
    ],
    "parse_device": [
        ("/dev/fuse", Device(source="/dev/fuse")),
        ("/dev/fuse:rw", Device(source="/dev/fuse", access="rw")),
        ("/dev/sda:/dev/xvda", Device(source="/dev/sda", target="/dev/xvda")),
        ("/dev/sda:/dev/xvda:r", Device(source="/dev/sda", target="/dev/xvda", access="r")),
    ],
    "parse_sysctl": [("a.b=1", ("a.b", "1")), ("a.b=", ("a.b", "")), ("a=b=c", ("a", "b=c"))],
    "parse_label": [("a=b", ("a", "b")), ("a", ("a", "")), ("a=b=c", ("a", "b=c"))],
    "parse_device_rate": [("/dev/sda:1mb", ("/dev/sda", 1 << 20)), ("/dev/a:b:4096", ("/dev/a:b", 4096))],
    "parse_device_operations": [("/dev/sda:1000", ("/dev/sda", 1000))],
    "parse_host": [
        ("db:10.0.0.1", ("db", "10.0.0.1")),
        ("db=10.0.0.1", ("db", "10.0.0.1")),
        ("db:::1", ("db", "::1")),
        ("db:[::1]", ("db", "::1")),
        ("host:host-gateway", ("host", "host-gateway")),
    ],
    "parse_network_option": [("com.docker.network.driver.mtu=1400", ("mtu", 1400))],
    "parse_env": [("A=b", ("A", "b")), ("A=", ("A", "")), ("A=b=c", ("A", "b=c"))],
    "parse_security": [
        ("no-new-privileges", ("no_new_privileges", True)),
        ("no-new-privileges=true", ("no_new_privileges", True)),
        ("no-new-privileges:false", ("no_new_privileges", False)),
        ("seccomp=unconfined", ("seccomp", "unconfined")),
        ("seccomp:unconfined", ("seccomp", "unconfined")),
        ("seccomp=builtin", ("seccomp", "default")),
    ],
}

BAD: dict[str, list[str]] = {
    "parse_size": ["", "m", "-1", "1x", "1.", ".5m", "1 2", "1mm", "1e3", "\u0661", "0x10", "1\n", "nan"],
    "parse_memory": ["-1", "lots"],
    "parse_swap": ["-2", ""],
    "parse_number": ["", "1.5", "one", "1 ", "--1"],
    "parse_pids": ["many"],
    "parse_cpus": ["", "-1", "nan", "inf", "1e3", "two", "."],
    "parse_seconds": ["0", "-1", "nan", "inf", ""],
    "parse_wait": ["", "-1", "nan"],
    "parse_duration": ["", "5", "soon", "-1s", "1s1m", "1d"],
    "parse_log_driver": ["", "json-file", "None"],
    "parse_log_option": [
        "",
        "max-size",
        "max-size=x",
        "max-file=0",
        "max-file=-1",
        "max-file=x",
        "mode=non-blocking",
    ],
    "parse_restart": ["", "sometimes", "always:3", "on-failure:", "on-failure:x", "on-failure:-1"],
    "parse_mount": [
        "",
        "type=bind",
        "type=bind,source=/srv",
        "type=bind,target=/data",
        "type=bind,source=,target=/data",
        "type=bind,source=/srv,target=data",
        "type=bind,source=srv,target=/data",
        "type=bind,source=/srv,target=/",
        "type=bind,source=/srv,target=/proc/x",
        "type=bind,source=/srv,target=/data,readonly=maybe",
        "type=bind,source=/srv,target=/data,target=/more",
        "type=bind,source=/srv,dst=/data,target=/data",
        "type=bind,source,target=/data",
        "type=bind,source=/srv,target=/data,bind-propagation=shared",
        "type=bind,source=/srv,target=/data,tmpfs-size=1m",
        "type=bind,source=/srv,target=/data,",
        'type=bind,"source=/srv,target=/data',
        "type=tmpfs,target=/run,source=/srv",
        "type=tmpfs,target=/run,readonly",
        "type=tmpfs,target=/run,tmpfs-mode=999",
        "type=tmpfs,target=/run,tmpfs-size=1",
        "type=volume,source=data,target=/data",
        "source=data,target=/data",
        "type=npipe,source=/srv,target=/data",
    ],
    "parse_volume": [
        "",
        "/data",
        "data:/data",
        ":/data",
        "/srv:",
        "/srv:data",
        "/srv:/data:z",
        "/srv:/data:ro,shared",
        "/srv:/data:ro:rw",
    ],
    "parse_tmpfs": ["", "run", "/run:size", "/run:size=x", "/run:mode=8", "/run:suid", "/run:ro", "/proc"],
    "parse_ulimit": ["", "nofile", "=1", "nofile=", "nofile=1:", "nofile=x", "nofile=2:1", "nofile=1:2:3"],
    "parse_device": ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:/dev/c", "/dev/a:/dev/b:x", "/dev/a::r"],
    "parse_sysctl": ["", "a.b", "=1"],
    "parse_label": ["", "=1"],
    "parse_device_rate": ["", "/dev/sda", "sda:1mb", "/dev/sda:", "/dev/sda:x"],
    "parse_device_operations": ["", "/dev/sda", "/dev/sda:1m", "/dev/sda:-1"],
    "parse_host": ["", "db", "db:", ":1", "=1"],
    "parse_network_option": ["", "mtu", "com.docker.network.driver.mtu=x", "other=1"],
    "parse_env": ["", "=1", "HOME"],
    "parse_security": [
        "",
        "no-new-privileges=maybe",
        "seccomp",
        "seccomp=",
        "seccomp=/nonexistent.json",
        "apparmor=unconfined",
        "label=disable",
        "systempaths=unconfined",
    ],
}


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [(parser, text, value) for parser, rows in GOOD.items() for text, value in rows],
)
def test_text_has_value(parser: str, text: str, value: object) -> None:
    """A text that Docker takes has the value that Docker gives it."""
    assert getattr(options, parser)(text) == value


@pytest.mark.parametrize(
    ("parser", "text"), [(parser, text) for parser, texts in BAD.items() for text in texts]
)
def test_text_is_refused(parser: str, text: str) -> None:
    """Any other text is refused, with a reason."""
    with pytest.raises(ValueError, match=r"\w{3}"):
        getattr(options, parser)(text)


def test_every_parser_has_both_tables() -> None:
    """No parser is without good and bad examples."""
    parsers = {name for name in options.__all__ if name.startswith("parse_")}
    assert parsers == GOOD.keys() == BAD.keys()


def test_name_alone_says_that_the_host_is_not_asked() -> None:
    """A variable without a value is refused with the way to write it, as Docker would read the host's."""
    with pytest.raises(ValueError, match=r"environment is not passed on; write HOME=VALUE"):
        options.parse_env("HOME")


def test_profile_is_read(tmp_path: Path) -> None:
    """A file of --security-opt seccomp is given as the decoded profile."""
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}', encoding="ascii")
    assert options.parse_security(f"seccomp={path}") == ("seccomp", {"defaultAction": "SCMP_ACT_ALLOW"})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}'])
def test_damaged_profile_is_refused(tmp_path: Path, text: str) -> None:
    """A profile that is not a JSON object is refused."""
    path = tmp_path / "profile.json"
    path.write_text(text, encoding="ascii")
    with pytest.raises(ValueError, match=r"profile\.json"):
        options.parse_security(f"seccomp={path}")


def test_env_file_has_variables(tmp_path: Path) -> None:
    """Blank lines and comments do not count, and quotes and blanks belong to the value."""
    path = tmp_path / "env"
    path.write_bytes(b'\xef\xbb\xbfA=1\n\n# note\n  B = "2" \r\n#C=3\nD=e=f\nG=\nA=4')
    with pytest.raises(ValueError, match=r"line 4: the name 'B ' has a blank"):
        options.read_env_file(str(path))
    path.write_bytes(b'\xef\xbb\xbfA=1\n\n# note\n  B= "2" \r\n#C=3\nD=e=f\nG=\nA=4')
    assert options.read_env_file(str(path)) == {"A": "4", "B": ' "2" ', "D": "e=f", "G": ""}


@pytest.mark.parametrize(
    ("content", "reason"), [(b"A=1\nHOME\n", "line 2"), (b"=1", "line 1"), (b"A=\xff", "UTF-8")]
)
def test_bad_env_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """A line without a value, without a name or not in UTF-8 is refused with its number."""
    path = tmp_path / "env"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        options.read_env_file(str(path))


def test_missing_env_file_is_refused() -> None:
    """A file that does not exist is refused with the kernel's reason."""
    with pytest.raises(ValueError, match="no such file"):
        options.read_env_file("/nonexistent")


def test_later_variables_count() -> None:
    """Later files replace earlier ones, and the command line replaces both."""
    merged = options.merge_env([{"A": "1", "B": "1"}, {"B": "2", "C": "2"}], [("C", "3"), ("D", "3")])
    assert merged == {"A": "1", "B": "2", "C": "3", "D": "3"}
