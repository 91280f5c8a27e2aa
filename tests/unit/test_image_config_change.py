from __future__ import annotations

import pytest

from containerlib.errors import InvalidOption
from containerlib.image.config_change import changed
from containerlib.oci.image_config import Config

BASE = Config(env=("PATH=/bin", "A=1"), labels={"x": "y"}, working_dir="/srv", volumes=("/data",))


def test_every_instruction() -> None:
    """Each instruction changes its field, and keeps what others have said."""
    result = changed(
        BASE,
        [
            'CMD ["sh", "-c", "date"]',
            "ENTRYPOINT exec top -b",
            'ENV A=2 B="two words"',
            "env C three words",
            "EXPOSE 80 53/udp",
            "LABEL a=b",
            "STOPSIGNAL SIGQUIT",
            "USER app:app",
            'VOLUME ["/logs", "/data"]',
            "WORKDIR app",
        ],
    )
    assert result.cmd == ("sh", "-c", "date")
    assert result.entrypoint == ("/bin/sh", "-c", "exec top -b")
    assert result.env == ("PATH=/bin", "A=2", "B=two words", "C=three words")
    assert result.exposed_ports == ("80/tcp", "53/udp")
    assert result.labels == {"x": "y", "a": "b"}
    assert (result.stop_signal, result.user) == ("SIGQUIT", "app:app")
    assert result.volumes == ("/data", "/logs")
    assert result.working_dir == "/srv/app"


@pytest.mark.parametrize(
    ("instruction", "entry"),
    [
        ("ENV X=$A", "X=1"),
        ("ENV X=${A}b$", "X=1b$"),
        ("ENV X='$A'", "X=$A"),
        ('ENV X="$A $B"', "X=1 "),
        (r"ENV X=\$A", "X=$A"),
        (r'ENV X="\$A \"q\" \n"', 'X=$A "q" \\n'),
        (r"ENV X=a\ b''c", "X=a bc"),
        ("ENV X  $A  and 'b  c'", "X=1  and b  c"),
        ("ENV\tX=1=2", "X=1=2"),
        ("ENV X=", "X="),
        ("ENV PATH=/opt/bin:$PATH", "PATH=/opt/bin:/bin"),
    ],
)
def test_quotes_and_variables(instruction: str, entry: str) -> None:
    """Quotes, backslashes and variables mean what they mean in a Dockerfile."""
    assert entry in changed(BASE, [instruction]).env


def test_values_of_one_word() -> None:
    """Variables count everywhere; directories are joined and made plain; ports may be a range."""
    result = changed(
        BASE,
        [
            "ENV U=app P=8000",
            "USER $U:$U",
            "WORKDIR ../$U/./my dir",
            "EXPOSE $P-8002/udp",
            "VOLUME /v/$U '/a b'",
        ],
    )
    assert (result.user, result.working_dir) == ("app:app", "/app/my dir")
    assert result.exposed_ports == ("8000/udp", "8001/udp", "8002/udp")
    assert result.volumes == ("/data", "/v/app", "/a b")
    path = changed(Config(), ["ENV PATH=/x:${PATH}"]).env[0]
    assert path.startswith("PATH=/x:/usr/local/sbin:")


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("RUN true", "there are CMD, ENTRYPOINT"),
        ("", "there are CMD"),
        ("CMD", "CMD needs an argument"),
        ('CMD ["a", 1]', "texts only"),
        ('CMD ["a"', "Expecting"),
        ("ENV A", "write NAME=VALUE"),
        ("ENV =b c=d", "write NAME=VALUE"),
        ("ENV 'A=b", "no end"),
        ("USER 'x", "no end"),
        ("USER x\\", "backslash"),
        ("ENV A=${B:-c}", "only"),
        ("ENV A=1 B", "write NAME=VALUE"),
        ("EXPOSE 9-8", "no port"),
        ("EXPOSE 1-65536", "no port"),
        ("EXPOSE 80:80", "no port"),
        ("EXPOSE 0", "no port"),
        ("EXPOSE 80/icmp", "no port"),
        ("EXPOSE http", "no port"),
    ],
)
def test_bad_instructions(instruction: str, words: str) -> None:
    """What is unknown or has a wrong form is refused by name."""
    with pytest.raises(InvalidOption, match=words) as caught:
        changed(BASE, ["USER x", instruction])
    assert (caught.value.option, caught.value.value) == ("change", instruction)
