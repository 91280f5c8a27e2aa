"""Content digests: the only type from which a path in the content store is ever made.

A `Digest` exists only if its text passed a strict pattern, so holding one is proof that it is a safe path
component. Also computes chain ids, the names of stacks of layers.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, NewType

from containerlib.errors import InvalidDigest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

__all__ = ["ChainId", "DiffId", "Digest", "chain_id", "chain_ids"]

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


class Digest(str):
    """A digest such as ``sha256:e3b0...``, checked when it is made; otherwise an ordinary string.

    Raises:
        InvalidDigest: The text is not ``sha256:`` or ``sha512:`` and 64 or 128 lower-case hexadecimal digits.
    """

    __slots__ = ()

    def __new__(cls, text: object) -> Self:
        """Check `text` and make a digest of it."""
        if not isinstance(text, str) or _PATTERN.fullmatch(text) is None:
            raise InvalidDigest(f"{str(text)[:160]!r} is not a sha256 or sha512 digest")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """Return the digest of `data`."""
        if algorithm not in {"sha256", "sha512"}:
            raise InvalidDigest(f"algorithm {algorithm!r} is not supported: use sha256 or sha512")
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hexadecimal digits alone."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first twelve hexadecimal digits, as people see them."""
        return self.hex[:12]


DiffId = NewType("DiffId", Digest)
"""Digest of the uncompressed archive of one layer."""

ChainId = NewType("ChainId", Digest)
"""Digest that names a layer together with everything below it."""


def chain_ids(diff_ids: Iterable[Digest]) -> list[ChainId]:
    """Return the chain id of every prefix of `diff_ids`, lowest layer first.

    Source: OCI image-spec 1.1, "Layer ChainID".
    """
    chain: list[ChainId] = []
    for diff_id in diff_ids:
        below = f"{chain[-1]} {diff_id}" if chain else None
        chain.append(ChainId(Digest(diff_id) if below is None else Digest.of(below.encode())))
    return chain


def chain_id(diff_ids: Iterable[Digest]) -> ChainId:
    """Return the chain id of the whole stack `diff_ids`, which must not be empty.

    Raises:
        InvalidDigest: There is no layer, so there is no chain.
    """
    chain = chain_ids(diff_ids)
    if not chain:
        raise InvalidDigest("a stack without layers has no chain id")
    return chain[-1]
