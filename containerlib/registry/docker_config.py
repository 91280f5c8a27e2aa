"""The parts of Docker's ``config.json`` that are about credentials; ``auth.json`` has the same form.

Parses bytes and edits parsed documents; knows nothing of files and runs nothing. Types are checked strictly,
unknown keys are left alone.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, cast

import attrs

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError
from containerlib.registry.config_file import MAX_CONFIG_BYTES
from containerlib.registry.credential import Credential, normal_key, server_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["DockerConfig", "HelperUse", "parse_document", "print_document", "with_entry", "without_entry"]

_MAX_ENTRIES = 10_000


@attrs.frozen
class HelperUse:
    """That a configuration leaves the credentials of a registry to a helper.

    Attributes:
        name: Of the helper, as it is written.
        server: What the helper calls the registry.
        is_only: Whether the file's own entries must not be used for this registry.
        where: File and key that say so.
    """

    name: str
    server: str
    is_only: bool
    where: str


@attrs.frozen
class DockerConfig:
    """What one file says about credentials.

    Attributes:
        what: The file, for messages.
        auths: Credentials by normal name of the registry or namespace.
        servers: How the file writes those names, also of entries without a credential.
        helpers: Names of helpers and their servers by normal name of the registry.
        store: Name of the helper for all other registries; empty without one.
    """

    what: str
    auths: Mapping[str, Credential] = attrs.field(factory=dict)
    servers: Mapping[str, str] = attrs.field(factory=dict)
    helpers: Mapping[str, tuple[str, str]] = attrs.field(factory=dict)
    store: str = ""

    @classmethod
    def parse(cls, document: dict[str, object], *, what: str, is_legacy: bool = False) -> DockerConfig:
        """Check a parsed document.

        Args:
            document: From `parse_document`.
            what: The file, for messages.
            is_legacy: Whether it is a ``.dockercfg``, which holds only what ``auths`` is today.

        Raises:
            InvalidInputError: A key that is about credentials does not have its form.
        """
        if is_legacy:
            auths, servers = _parse_auths(document, what=what, where="")
            return cls(what, auths, servers)
        auths, servers = _parse_auths(_mapping(document, "auths", what), what=what, where="auths ")
        store = document.get("credsStore")
        if store is not None and not isinstance(store, str):
            raise InvalidInputError(f"{what}: key 'credsStore' is not a text")
        return cls(what, auths, servers, _parse_helpers(document, what), store or "")

    def helper_for(self, key: str) -> HelperUse | None:
        """Return the helper that keeps the credentials of the registry with the normal name `key`."""
        found = self.helpers.get(key)
        if found is not None:
            name, server = found
            return HelperUse(name, server, is_only=True, where=f"{self.what}: key 'credHelpers'")
        if not self.store:
            return None
        server = self.servers.get(key, server_of(key))
        return HelperUse(self.store, server, is_only=False, where=f"{self.what}: key 'credsStore'")

    def credential_for(self, key: str, repository: str) -> Credential | None:
        """Return the entry whose name is the longest beginning of the registry's and repository's."""
        for name in _names(key, repository):
            found = self.auths.get(name)
            if found is not None:
                return found
        return None


def parse_document(data: bytes, *, what: str) -> dict[str, object]:
    """Parse `data`; an empty file is an empty document, as it is for Docker."""
    return strict_json.loads_object(data, limit=MAX_CONFIG_BYTES, what=what) if data.strip() else {}


def print_document(document: Mapping[str, object]) -> bytes:
    """Print `document` as Docker does."""
    return (json.dumps(document, indent="\t", ensure_ascii=False) + "\n").encode()


def with_entry(document: Mapping[str, object], key: str, credential: Credential | None) -> dict[str, object]:
    """Return `document` with `credential` as the entry of `key`; None stands for one that a helper keeps."""
    rest = without_entry(document, key)
    auths = dict(cast("Mapping[str, object]", rest.get("auths") or {}))
    auths[server_of(key)] = {} if credential is None else _entry(credential)
    return {**rest, "auths": auths}


def without_entry(document: Mapping[str, object], key: str, *, is_legacy: bool = False) -> dict[str, object]:
    """Return `document` without any entry of `key`, however it is written."""
    result = dict(document)
    auths = result if is_legacy else cast("Mapping[str, object]", result.get("auths") or {})
    kept = {name: entry for name, entry in auths.items() if normal_key(name) != key}
    if is_legacy:
        return kept
    return {**result, "auths": kept} if len(kept) != len(auths) else result


def _entry(credential: Credential) -> dict[str, str]:
    entry: dict[str, str] = {}
    if credential.secret:
        pair = f"{credential.username}:{credential.secret}".encode()
        entry["auth"] = base64.b64encode(pair).decode("ascii")
    elif credential.username:
        # Docker leaves the user name beside a token in the same place, with an empty password.
        entry["auth"] = base64.b64encode(f"{credential.username}:".encode()).decode("ascii")
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    if credential.registry_token:
        entry["registrytoken"] = credential.registry_token
    return entry


def _names(key: str, repository: str) -> Iterator[str]:
    name = f"{key}/{repository}" if repository else key
    while name:
        yield name
        name = name.rpartition("/")[0]


def _mapping(document: Mapping[str, object], key: str, what: str) -> dict[str, object]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MAX_ENTRIES:
        raise InvalidInputError(f"{what}: key {key!r} is not an object of at most {_MAX_ENTRIES} entries")
    return cast("dict[str, object]", value)


def _parse_helpers(document: Mapping[str, object], what: str) -> dict[str, tuple[str, str]]:
    helpers: dict[str, tuple[str, str]] = {}
    for written, name in _mapping(document, "credHelpers", what).items():
        if not isinstance(name, str):
            raise InvalidInputError(f"{what}: key 'credHelpers' {written!r} is not a text")
        key = normal_key(written)
        if key is not None and name and _is_better(written, key, helpers.get(key)):
            helpers[key] = (name, written)
    return helpers


def _parse_auths(
    entries: Mapping[str, object], *, what: str, where: str
) -> tuple[dict[str, Credential], dict[str, str]]:
    auths: dict[str, Credential] = {}
    servers: dict[str, str] = {}
    for written, entry in entries.items():
        credential = _parse_entry(entry, f"{what}: key {where}{written!r}")
        key = normal_key(written)
        if key is None:
            continue
        is_better = _is_better(written, key, servers.get(key))
        if is_better:
            servers[key] = written
        if credential is not None and (is_better or key not in auths):
            auths[key] = credential
    return auths, servers


def _is_better(written: str, key: str, present: object) -> bool:
    """Say whether a spelling wins over one that came before: only the one that Docker writes does."""
    return present is None or written == server_of(key)


def _parse_entry(entry: object, where: str) -> Credential | None:
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{where}: not an object")
    texts: dict[str, str] = {}
    for name in ("auth", "username", "password", "identitytoken", "registrytoken"):
        value = entry.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidInputError(f"{where}: {name!r} is not a text")
        texts[name] = value or ""
    username, secret = texts["username"], texts["password"]
    if texts["auth"]:
        username, secret = _decode_pair(texts["auth"], where)
    if not (secret or texts["identitytoken"] or texts["registrytoken"]):
        return None
    try:
        return Credential(username, secret, texts["identitytoken"], texts["registrytoken"])
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from None


def _decode_pair(text: str, where: str) -> tuple[str, str]:
    try:
        pair = base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True).decode()
    except (binascii.Error, ValueError):
        pair = ""
    # Some programs of old padded the password with zero bytes.
    username, colon, secret = pair.rstrip("\0").partition(":")
    if not colon:
        raise InvalidInputError(f"{where}: 'auth' is not the base64 form of user:password") from None
    return username, secret
