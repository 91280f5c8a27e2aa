from __future__ import annotations

import os

import pytest

from containerlib.errors import InvalidInputError
from containerlib.oci.platform import Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("LINUX/AMD64", "linux/amd64"),
    ],
)
def test_spellings(text: str, expected: str) -> None:
    """The usual spellings of one platform are one value."""
    assert str(Platform.parse(text)) == expected


@pytest.mark.parametrize("text", ["", "/", "a/b/c/d", "linux/", "linux/am d64", "linux/a\n", "x" * 100])
def test_bad_platforms_are_refused(text: str) -> None:
    """Text of another form is refused."""
    with pytest.raises(InvalidInputError):
        Platform.parse(text)


def test_host() -> None:
    """The host's platform is the kernel's, in Go's words."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    assert Platform.host() == Platform("linux", names.get(os.uname().machine, os.uname().machine))


def test_best_candidate() -> None:
    """The same architecture wins over one that only runs here, and an unnamed one comes last."""
    arm64 = Platform("linux", "arm64")
    candidates = [
        Platform("linux", "amd64"),
        None,
        Platform("linux", "arm", "v6"),
        Platform("linux", "arm", "v7"),
        Platform("linux", "arm64"),
    ]
    assert arm64.best_of(candidates) == 4
    assert arm64.best_of(candidates[:4]) == 3
    assert arm64.best_of(candidates[:2]) == 1
    assert arm64.best_of(candidates[:1]) is None


def test_variant_matters_only_if_asked_for() -> None:
    """A platform without a variant matches any variant."""
    assert Platform("linux", "arm", "v7").matches(Platform("linux", "arm"))
    assert not Platform("linux", "arm", "v6").matches(Platform("linux", "arm", "v7"))


def test_json_round_trip() -> None:
    """What is printed is read back."""
    platform = Platform("linux", "arm", "v7", "1.2")
    assert Platform.from_json(platform.to_json()) == platform
