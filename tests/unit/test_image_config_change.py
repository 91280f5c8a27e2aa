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
    ("instruction", "words"),
    [
        ("RUN true", "there are CMD, ENTRYPOINT"),
        ("", "there are CMD"),
        ("CMD", "CMD needs an argument"),
        ('CMD ["a", 1]', "texts only"),
        ('CMD ["a"', "Expecting"),
        ("ENV A", "write NAME=VALUE"),
        ("ENV =b c=d", "write NAME=VALUE"),
        ("ENV 'A=b", "No closing quotation"),
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
