from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidReference
from containerlib.oci.digest import Digest
from containerlib.oci.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("alpine:3.19", "docker.io/library/alpine:3.19", "alpine:3.19"),
        ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("app:5000", "docker.io/library/app:5000", "app:5000"),
        ("ghcr.io/o/app", "ghcr.io/o/app:latest", "ghcr.io/o/app:latest"),
        ("HOST/app", "HOST/app:latest", "HOST/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}", f"alpine@{DIGEST}"),
        (f"alpine:1@{DIGEST}", f"docker.io/library/alpine:1@{DIGEST}", f"alpine:1@{DIGEST}"),
        ("a__b", "docker.io/library/a__b:latest", "a__b:latest"),
        ("a---b.c_d", "docker.io/library/a---b.c_d:latest", "a---b.c_d:latest"),
        ("beef", "docker.io/library/beef:latest", "beef:latest"),
    ],
)
def test_forms(text: str, canonical: str, familiar: str) -> None:
    """A reference has one canonical form and one that Docker shows, and both parse to the same."""
    reference = Reference.parse(text)
    assert (str(reference), reference.canonical, reference.familiar) == (canonical, canonical, familiar)
    assert Reference.parse(canonical) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":tag",
        "a:",
        "a@",
        "a@sha256:x",
        f"a@{DIGEST}@{DIGEST}",
        "../etc",
        "a/../b",
        "localhost/../b",
        "./a",
        "/a",
        "a/",
        "a//b",
        "Alpine",
        "docker.io/Alpine",
        "a b",
        "a\n",
        "a\0",
        "a:tag\n",
        "a:" + "x" * 129,
        "a:-x",
        "a:.x",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "host:port/a",
        "host:123456/a",
        "a" * 64,
        "x/" * 200 + "x",
        "a" * 2000,
        "ä",
        "a:ä",
        "a:\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_bad_references_are_refused(text: str) -> None:
    """What breaks Docker's grammar or a limit raises InvalidReference."""
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_default_tag_can_be_left_open() -> None:
    """A caller can see that no tag was given."""
    assert Reference.parse("alpine", default_tag=None).tag is None
    assert Reference.parse(f"alpine@{DIGEST}").tag is None


def test_pinning_keeps_the_name() -> None:
    """A reference can be pinned to a digest."""
    assert str(Reference.parse("alpine:1").with_digest(Digest(DIGEST))).endswith(f"alpine:1@{DIGEST}")


def test_upper_case_is_explained() -> None:
    """The message for a capital letter says what to do."""
    with pytest.raises(InvalidReference, match="lower case"):
        Reference.parse("me/App")


@given(st.text(max_size=300))
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Parsing never fails in another way, and its result is a fixed point without a climbing component."""
    try:
        reference = Reference.parse(text)
    except InvalidReference:
        return
    assert Reference.parse(reference.canonical) == reference
    assert Reference.parse(reference.familiar) == reference
    assert ".." not in reference.canonical.split("/")


@given(
    st.from_regex(
        r"([a-z]{1,3}(\.|:1)?/)?[a-z0-9._/-]{1,20}(:[\w.-]{0,5})?(@sha256:a{60,66})?", fullmatch=True
    )
)
def test_near_references_parse_or_are_refused(text: str) -> None:
    """Text that is nearly a reference gives a fixed point or InvalidReference."""
    test_any_text_parses_or_is_refused.hypothesis.inner_test(text)  # type: ignore[attr-defined]
