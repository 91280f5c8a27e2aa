"""Finding out whether a registry takes a credential, before it is kept anywhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import AuthenticationFailed
from containerlib.registry.answers import refused
from containerlib.registry.client import Registries
from containerlib.registry.credentials import Credentials
from containerlib.registry.tokens import basic_header

if TYPE_CHECKING:
    from collections.abc import Collection

    from containerlib.registry.credential import Credential
    from containerlib.registry.source import Source

__all__ = ["verified"]

_OK = 200
_BASE = "/v2/"


def verified(source: Source, credential: Credential, *, token_services: Collection[str] = ()) -> Credential:
    """Show `credential` to a registry, and return what is to be kept of it.

    That is an identity token in place of the password, if the registry's token service gives one out.

    Args:
        source: The registry.
        credential: What to show.
        token_services: See `Authorizer`.

    Raises:
        AuthenticationFailed: The registry refuses it, or lets everybody in and so cannot tell.
        RegistryError: It cannot be reached, or is no registry.
    """
    what = f"login to {source.host}"
    # Nothing else that this user has is tried.
    alone = Credentials({}, "/")
    alone.login(source.host, credential, persist=False)
    with contextlib.closing(
        Registries(alone, token_services=token_services, wants_identity=True)
    ) as registries:
        access = registries.access(source)
        with access.request("GET", _BASE, what) as answer:
            if answer.status != _OK:
                raise refused(answer.refusal(), what)
        if not access.is_challenged:
            # It lets everybody in, but it may know better when it is shown something.
            if not credential.secret:
                raise AuthenticationFailed(f"{what}: the registry asks for no credentials, nor for a token")
            headers = {"Authorization": basic_header(credential)}
            with access.request("GET", _BASE, what, headers) as answer:
                if answer.status != _OK:
                    raise refused(answer.refusal(), what)
        identity = alone.newest_identity(credential)
    if not identity:
        return credential
    return attrs.evolve(credential, secret="", identity_token=identity)
