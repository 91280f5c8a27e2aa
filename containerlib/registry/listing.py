"""Lists that a registry gives in pages: the tags of a repository, the repositories of a registry.

A page says where the next one is. That is followed within the same registry, and to an end: a list without
one is an error, and so is one that is longer than anybody can want.

Source: OCI distribution-spec 1.1, "Listing Tags"; the catalog of the distribution project; RFC 8288.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError, RegistryError
from containerlib.oci.reference import is_repository, is_tag
from containerlib.registry.answers import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from containerlib.registry.access import Asks
    from containerlib.registry.transport import Answer

__all__ = ["list_repositories", "list_tags", "pages"]

_OK = 200
_PAGE = 1000  # more is refused by some registries
_MAX_PAGES = 1000
_MAX_PAGE_BYTES = 4 << 20
_MAX_BYTES = 64 << 20
_MAX_NAMES = 200_000
_LINK = re.compile(r'\s*<([^<>]*)>((?:\s*;\s*[a-zA-Z*]+\s*=\s*(?:"[^"]*"|[^\s",;]+))*)\s*(?:,|$)')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"(?:[^"]*\s)?next(?:\s[^"]*)?"|next(?=[\s;]|$))', re.IGNORECASE)


def list_tags(asks: Asks, name: str) -> list[str]:
    """Return the tags of a repository, in the order of the registry.

    Args:
        asks: The repository.
        name: What it is called, for messages.

    Raises:
        RemoteNotFound: There is no such repository.
        RegistryError: The list has no end; see `Transport.request`.
    """
    return _names(asks, f"tags/list?n={_PAGE}", f"tags of {name}", "tags", is_tag)


def list_repositories(asks: Asks, name: str) -> list[str]:
    """Return the repositories of a registry, in its order; see `list_tags`."""
    return _names(asks, f"/v2/_catalog?n={_PAGE}", f"catalog of {name}", "repositories", is_repository)


def pages(
    asks: Asks, path: str, what: str, headers: dict[str, str] | None = None
) -> Iterator[tuple[Mapping[str, str], dict[str, object]]]:
    """Yield headers and document of each page of a list, from `path` on.

    Raises:
        RegistryError: A page cannot be had, is no document or too large, or the list has no end.
    """
    seen: set[str] = set()
    size = 0
    while path:
        if path in seen or len(seen) == _MAX_PAGES or size > _MAX_BYTES:
            raise RegistryError(f"{what}: the registry's list has no end")
        seen.add(path)
        with asks.request("GET", path, what, headers) as answer:
            if answer.status != _OK:
                raise refused(answer.refusal(), what)
            data = answer.read_all(_MAX_PAGE_BYTES)
            size += len(data)
            try:
                document = strict_json.loads_object(data, limit=_MAX_PAGE_BYTES, what=what)
            except InvalidInputError as error:
                raise RegistryError(f"{error}: the registry's answer is no list") from None
            path = _next_path(answer, what)
            yield answer.headers, document


def _names(asks: Asks, path: str, what: str, key: str, is_valid: Callable[[str], bool]) -> list[str]:
    found: dict[str, None] = {}
    for _headers, document in pages(asks, path, what):
        names = document.get(key)
        # What cannot be a name cannot be asked for either, and may be meant for a terminal.
        for name in names if isinstance(names, list) else []:
            if isinstance(name, str) and is_valid(name):
                found[name] = None
        if len(found) > _MAX_NAMES:
            raise RegistryError(f"{what}: more than {_MAX_NAMES} entries")
    return list(found)


def _next_path(answer: Answer, what: str) -> str:
    """Return path and query of the next page; empty after the last one."""
    header = answer.headers.get("link", "")
    position = 0
    while (link := _LINK.match(header, position)) is not None:
        position = link.end()
        if _NEXT.search(link[2]):
            break
        if position >= len(header):
            return ""
    if link is None:
        return ""
    try:
        here, there = urlsplit(answer.url), urlsplit(urljoin(answer.url, link[1]))
    except ValueError:
        raise RegistryError(f"{what}: the registry's link to the next page is no address") from None
    if (here.scheme, here.netloc) != (there.scheme, there.netloc) or not there.path.startswith("/v2/"):
        raise RegistryError(f"{what}: the registry's next page is not on the registry itself")
    return f"{there.path}?{there.query}" if there.query else there.path
