from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidDigest
from containerlib.oci.digest import Digest, chain_id, chain_ids

HEX = "0123456789abcdef"


@given(st.text(alphabet=HEX, min_size=64, max_size=64))
def test_sha256_text_is_a_digest(digits: str) -> None:
    """Sixty-four lower-case digits behind sha256 are a digest that prints as it was read."""
    digest = Digest(f"sha256:{digits}")
    assert (str(digest), digest.algorithm, digest.hex, digest.short) == (
        f"sha256:{digits}",
        "sha256",
        digits,
        digits[:12],
    )


@given(st.text(alphabet=HEX, min_size=128, max_size=128))
def test_sha512_text_is_a_digest(digits: str) -> None:
    """A sha512 digest has 128 digits."""
    assert Digest(f"sha512:{digits}").algorithm == "sha512"


@given(
    st.one_of(
        st.text(), st.text(alphabet=string.hexdigits + ":./\0\n", max_size=140), st.integers(), st.none()
    )
)
def test_other_input_is_refused(value: object) -> None:
    """Anything else raises InvalidDigest and nothing besides."""
    with pytest.raises(InvalidDigest):
        Digest(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:..",
        "sha256:../../x",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "a" * 63 + "\0",
        "sha256:" + "٣" * 64,
        "md5:" + "a" * 32,
        "SHA256:" + "a" * 64,
        " sha256:" + "a" * 64,
        "sha512:" + "a" * 64,
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    """Wrong length, case, algorithm, and characters that only look right are no digest."""
    with pytest.raises(InvalidDigest):
        Digest(text)


def test_digest_of_bytes() -> None:
    """The digest of bytes is their hash."""
    assert Digest.of(b"x") == f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    assert Digest.of(b"x", "sha512").hex == hashlib.sha512(b"x").hexdigest()
    with pytest.raises(InvalidDigest):
        Digest.of(b"x", "md5")


def test_chain_of_one_layer_is_its_diff_id() -> None:
    """The chain id of a single layer is the layer's diff id."""
    layer = Digest.of(b"layer")
    assert chain_id([layer]) == layer


def test_chain_ids_hash_the_chain_below() -> None:
    """Each chain id is the hash of the one below and the next diff id, by the specification's formula."""
    layers = [Digest.of(bytes([number])) for number in range(3)]
    first, second, third = chain_ids(layers)
    assert first == layers[0]
    assert second == Digest.of(f"{first} {layers[1]}".encode())
    assert third == Digest.of(f"{second} {layers[2]}".encode()) == chain_id(layers)


def test_no_layers_have_no_chain() -> None:
    """A stack without layers has no name."""
    with pytest.raises(InvalidDigest):
        chain_id([])
