"""The registry as an aiohttp application: which handler answers what, and what goes with every answer.

Whatever a handler raises becomes an error document here, and nothing of the inside gets out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from containerlib._util.http_service import guarded
from containerlib.errors import InvalidReference
from containerlib.registry.server import blobs, listings, manifests, pushes
from containerlib.registry.server.refused import Refused, error_document
from containerlib.registry.server.route import parse_query, parse_route
from containerlib.registry.server.service import Call, Service, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from containerlib.registry.server.route import Route

    Handler: TypeAlias = Callable[[Service, Call], Awaitable[web.StreamResponse]]

__all__ = ["make_app"]

_LOG = logging.getLogger(__name__)
_VERSION = {"Docker-Distribution-API-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"}
_MAX_FORM = 64 << 10
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS))
_INSUFFICIENT_STORAGE = 507
_SLOWEST_SWEEP_S = 30.0


async def _base(_service: Service, _call: Call) -> web.StreamResponse:
    return web.Response(body=b"{}", headers={"Content-Type": "application/json"})


_HANDLERS: dict[str, dict[str, tuple[Handler, str]]] = {
    "base": {"GET": (_base, "")},
    "catalog": {"GET": (listings.list_repositories, "")},
    "tags": {"GET": (listings.list_tags, "pull")},
    "referrers": {"GET": (listings.list_referrers, "pull")},
    "manifest": {
        "GET": (manifests.get_manifest, "pull"),
        "PUT": (manifests.put_manifest, "push"),
        "DELETE": (manifests.delete_manifest, "delete"),
    },
    "blob": {"GET": (blobs.get_blob, "pull"), "DELETE": (blobs.delete_blob, "delete")},
    "uploads": {"POST": (pushes.begin_upload, "push")},
    "upload": {
        "GET": (pushes.upload_status, "push"),
        "PATCH": (pushes.patch_upload, "push"),
        "PUT": (pushes.finish_upload, "push"),
        "DELETE": (pushes.cancel_upload, "push"),
    },
}


def make_app(make_service: Callable[[], Service]) -> web.Application:
    """Return the application.

    Args:
        make_service: Makes what is behind it, in the thread and the event loop that will serve it.
    """
    service = make_service()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _answer(service, request)

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(service))
        yield
        sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweeping
        if service.cache is not None:
            await service.cache.close()
        # Requests that were cut off may have left threads behind that still write.
        await asyncio.get_running_loop().shutdown_default_executor()
        service.uploads.close()
        service.storage.close()

    async def stop(_app: web.Application) -> None:
        if service.cache is not None:
            service.cache.stop()

    app = web.Application(middlewares=[guarded])
    app.on_shutdown.append(stop)
    app.router.add_route("*", "/{path:.*}", answer)
    app.cleanup_ctx.append(lifetime)
    return app


async def _sweep(service: Service) -> None:
    """End uploads that nobody goes on with, for as long as the service lives."""
    pause = min(_SLOWEST_SWEEP_S, service.uploads.limits.expiry_s / 2)
    while True:
        await asyncio.sleep(pause)
        service.uploads.expire()


async def _answer(service: Service, request: web.Request) -> web.StreamResponse:
    try:
        response = await _handle(service, request)
    except Refused as refused:
        response = _refusal(refused)
    except InvalidReference as error:
        response = _refusal(Refused("NAME_INVALID", str(error)))
    except ConnectionError:
        response = _refusal(Refused("UNKNOWN", "the connection is gone"))
    except Exception as error:  # noqa: BLE001 - clients get an answer whatever it is, and the log the rest
        if isinstance(error, OSError) and error.errno in _FULL:
            failed = Refused("UNKNOWN", "there is no room left", status=_INSUFFICIENT_STORAGE)
        else:
            _LOG.exception("%s %s", request.method, request.rel_url.raw_path)
            failed = Refused("UNKNOWN", "the registry failed; its log says why")
        response = _refusal(failed)
    if not response.prepared:
        response.headers.update(_VERSION)
    return response


def _refusal(refused: Refused) -> web.Response:
    headers = {"Content-Type": "application/json", **refused.headers}
    response = web.Response(status=refused.status, body=error_document(refused), headers=headers)
    if headers.get("Connection") == "close":
        response.force_close()
    return response


async def _handle(service: Service, request: web.Request) -> web.StreamResponse:
    raw_path, _, raw_query = request.raw_path.partition("?")
    route = parse_route(raw_path)
    query = parse_query(raw_query)
    if route.kind == "token":
        return await _token(service, request, query)
    handler, action = _handler(service, request, route)
    scope = _scope(route, action)
    grant = await service.access.grant(request, scope)
    if route.kind == "catalog" and not grant.sees_catalog():
        raise service.access.denial(request, grant, scope, "list repositories")
    if action and not await grant.allows(route.repository, action):
        raise service.access.denial(request, grant, scope, f"{action} {route.repository}")
    return await handler(service, Call(request, route, query, grant))


def _handler(service: Service, request: web.Request, route: Route) -> tuple[Handler, str]:
    method = "GET" if request.method == "HEAD" else request.method
    known = _HANDLERS[route.kind]
    if method not in known:
        allowed = ", ".join(("HEAD", *known) if "GET" in known else known)
        raise Refused("UNSUPPORTED", f"{request.method[:20]} is not for this", headers={"Allow": allowed})
    handler, action = known[method]
    settings = service.settings
    if action in {"push", "delete"} and (settings.read_only or service.cache is not None):
        kind = "read-only" if service.cache is None else "a cache of another one"
        raise Refused("UNSUPPORTED", f"this registry is {kind}")
    if action == "delete" and not settings.allow_delete:
        raise Refused("UNSUPPORTED", "nothing is deleted from this registry")
    return handler, action


def _scope(route: Route, action: str) -> str:
    if route.kind == "catalog":
        return "registry:catalog:*"
    if not route.repository:
        return ""
    return f"repository:{route.repository}:{'pull,push' if action == 'push' else action}"


async def _token(service: Service, request: web.Request, query: dict[str, list[str]]) -> web.Response:
    if request.method not in {"GET", "POST"}:
        raise Refused("UNSUPPORTED", "tokens are asked for by GET or POST", headers={"Allow": "GET, POST"})
    form = b""
    if request.method == "POST":
        form = await read_body(request, _MAX_FORM, service.settings.stall_timeout_s)
        query = parse_query(form.decode("ascii", "replace"))
    body = await service.access.token(request, query, form)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return web.Response(body=body, headers=headers)
