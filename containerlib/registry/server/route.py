"""What a request is about: the path of its URL, taken apart and checked. Pure.

A path is decoded once, and every part must match its grammar before it is used for anything.

Source: OCI distribution-spec 1.1, "Endpoints".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

import attrs

from containerlib.errors import InvalidDigest
from containerlib.oci.digest import Digest
from containerlib.oci.reference import is_repository, is_tag
from containerlib.registry.server.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "Route", "as_digest", "as_reference", "parse_count", "parse_query", "parse_route"]

Kind: TypeAlias = Literal[
    "base", "token", "catalog", "tags", "manifest", "blob", "uploads", "upload", "referrers"
]

MAX_PATH = 1024
_MAX_QUERY = 4096
_MAX_PARAMETERS = 64
_MAX_DIGITS = 9
_SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@attrs.frozen
class Route:
    """One resource.

    Attributes:
        kind: What it is.
        repository: In which repository; empty if in none.
        reference: Tag, digest or session id as the client wrote it; empty if there is none.
    """

    kind: Kind
    repository: str = ""
    reference: str = ""


def parse_route(raw_path: str) -> Route:
    """Take a path apart, as it stands in the request.

    Raises:
        Refused: There is nothing of the kind, or the repository's name is none.
    """
    path = _decoded(raw_path)
    if path in {"/v2", "/v2/"}:
        return Route("base")
    if path == "/token":
        return Route("token")
    if path == "/v2/_catalog":
        return Route("catalog")
    rest = path.removeprefix("/v2/")
    if rest == path:
        raise _no_such_path(path)
    name, kind, reference = _split(rest)
    if kind is None:
        raise _no_such_path(path)
    if not is_repository(name):
        raise Refused("NAME_INVALID", f"{name[:80]!r} is not the name of a repository")
    if kind == "upload" and _SESSION.fullmatch(reference) is None:
        raise Refused("BLOB_UPLOAD_UNKNOWN", f"there is no upload {reference[:80]!r}")
    return Route(kind, name, reference)


def _split(rest: str) -> tuple[str, Kind | None, str]:
    if rest.endswith("/tags/list"):
        return rest.removesuffix("/tags/list"), "tags", ""
    if rest.endswith(("/blobs/uploads/", "/blobs/uploads")):
        return rest.removesuffix("/").removesuffix("/blobs/uploads"), "uploads", ""
    above, _, last = rest.rpartition("/")
    endings: tuple[tuple[str, Kind], ...] = (
        ("/manifests", "manifest"),
        ("/blobs/uploads", "upload"),
        ("/blobs", "blob"),
        ("/referrers", "referrers"),
    )
    for ending, kind in endings:
        if above.endswith(ending):
            return above.removesuffix(ending), kind, last
    return "", None, ""


def _decoded(raw_path: str) -> str:
    if len(raw_path) > MAX_PATH:
        raise Refused("NAME_INVALID", f"the path has more than {MAX_PATH} characters", status=414)
    try:
        path = unquote_to_bytes(raw_path).decode("ascii")
    except UnicodeDecodeError:
        raise Refused("NAME_INVALID", "the path is not ASCII") from None
    if not path.isprintable():
        raise Refused("NAME_INVALID", "the path holds control characters")
    return path


def _no_such_path(path: str) -> Refused:
    return Refused("NAME_UNKNOWN", f"there is nothing at {path[:200]!r}")


def parse_query(query: str) -> dict[str, list[str]]:
    """Return the parameters of a query, each with all its values.

    Raises:
        Refused: There are too many, or they are not text.
    """
    if len(query) > _MAX_QUERY:
        raise Refused("UNSUPPORTED", f"the query has more than {_MAX_QUERY} characters", status=414)
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise Refused("UNSUPPORTED", "the query cannot be read", status=400) from None
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def parse_count(query: Mapping[str, list[str]], limit: int) -> int:
    """Return how many results are asked for with ``n``, at most `limit`; `limit` if it is not said.

    Raises:
        Refused: It is not a number.
    """
    text = query.get("n", [str(limit)])[-1]
    if not (text.isascii() and text.isdecimal()):
        raise Refused("UNSUPPORTED", f"n={text[:40]!r} is not a number of results", status=400)
    return min(int(text), limit) if len(text) <= _MAX_DIGITS else limit


def as_digest(text: str) -> Digest:
    """Return `text` as a digest.

    Raises:
        Refused: It is none, or of an algorithm that is not supported.
    """
    try:
        return Digest(text)
    except InvalidDigest as error:
        raise Refused("DIGEST_INVALID", str(error)) from None


def as_reference(text: str) -> str | Digest:
    """Return what a manifest is asked for by: a digest if there is a colon in it, else a tag.

    Raises:
        Refused: It is neither.
    """
    if ":" in text:
        return as_digest(text)
    if not is_tag(text):
        raise Refused("MANIFEST_INVALID", f"{text[:140]!r} is neither a tag nor a digest")
    return text
