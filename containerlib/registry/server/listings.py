"""Lists over HTTP: tags, repositories, and what refers to a manifest; all of them in pages.

Source: OCI distribution-spec 1.1, "Content Discovery".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from aiohttp import web

from containerlib._util import strict_json
from containerlib.oci import media_type
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.route import as_digest, parse_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.server.service import Call, Service

__all__ = ["list_referrers", "list_repositories", "list_tags"]

T = TypeVar("T")

_JSON = "application/json"
_MAX_NAMES = 10_000
_MAX_REFERRERS = 1000
_MAX_PAGE_BYTES = 3 << 20


async def list_tags(service: Service, call: Call) -> web.Response:
    """Answer ``GET`` of the tags of a repository."""
    if service.cache is not None:
        tags = await service.cache.tags(call.repository)
    else:
        tags = await service.run(service.storage.tags, call.repository)
    if not tags and not await service.run(service.storage.has_repository, call.repository):
        raise Refused("NAME_UNKNOWN", f"there is no repository {call.repository!r}")
    page, headers = _page(call, tags, str, _MAX_NAMES)
    return _answer({"name": call.repository, "tags": page}, headers)


async def list_repositories(service: Service, call: Call) -> web.Response:
    """Answer ``GET`` of the catalog: the repositories that the sender may read."""
    names = await service.run(service.storage.repositories)
    if call.grant.authorize is not None:
        user, authorize = call.grant.user, call.grant.authorize
        names = await service.run(lambda: [name for name in names if authorize(user, name, "pull")])
    page, headers = _page(call, names, str, _MAX_NAMES)
    return _answer({"repositories": page}, headers)


async def list_referrers(service: Service, call: Call) -> web.Response:
    """Answer ``GET`` of what refers to a manifest; of one that is not there, too."""
    subject = as_digest(call.route.reference)
    if service.cache is not None:
        found = await service.cache.referrers(call.repository, subject)
    else:
        found = await service.run(service.storage.referrers, call.repository, subject)
    kind = call.parameter("artifactType")
    if kind is not None:
        found = [each for each in found if each.artifact_type == kind]
    page, headers = _page(call, found, lambda each: each.digest, _MAX_REFERRERS)
    page, headers = _bounded(call, page, headers)
    if kind is not None:
        headers["OCI-Filters-Applied"] = "artifactType"
    document = {
        "schemaVersion": 2,
        "mediaType": media_type.OCI_INDEX,
        "manifests": [each.to_json() for each in page],
    }
    return _answer(document, headers, media_type.OCI_INDEX)


def _page(
    call: Call, items: Sequence[T], key: Callable[[T], str], limit: int
) -> tuple[list[T], dict[str, str]]:
    """Return the part of a sorted list that is asked for, and where the next one is."""
    count = parse_count(call.query, limit)
    last = call.parameter("last")
    rest = [item for item in items if last is None or key(item) > last]
    page = rest[:count]
    if not page or len(page) == len(rest):
        return page, {}
    return page, _link(call, count, key(page[-1]))


def _bounded(
    call: Call, page: list[Descriptor], headers: dict[str, str]
) -> tuple[list[Descriptor], dict[str, str]]:
    """Shorten a page whose annotations are too much for one document."""
    size = 0
    for index, each in enumerate(page):
        size += len(strict_json.dumps(each.to_json()))
        if index and size > _MAX_PAGE_BYTES:
            return page[:index], _link(call, index, page[index - 1].digest)
    return page, headers


def _link(call: Call, count: int, last: str) -> dict[str, str]:
    query: dict[str, str] = {"n": str(count), "last": last}
    kind = call.parameter("artifactType")
    if kind is not None:
        query["artifactType"] = kind
    path = call.request.rel_url.raw_path
    return {"Link": f'<{path}?{urlencode(query)}>; rel="next"'}


def _answer(document: object, headers: dict[str, str], kind: str = _JSON) -> web.Response:
    return web.Response(body=strict_json.dumps(document), headers={"Content-Type": kind, **headers})
