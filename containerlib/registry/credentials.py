"""Where credentials come from: the files that other programs keep.

Order: ``DOCKER_AUTH_CONFIG``, ``REGISTRY_AUTH_FILE``, the auth.json of containers, and
Docker's config.json with its credential helpers. A helper is run only for the registry that is asked.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.errors import AuthenticationFailed, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Credential", "Credentials"]

_MAX_FILE_BYTES = 4 << 20
_HELPER_TIMEOUT_S = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HUB_KEYS = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # noqa: S105 - the name by which helpers mark an identity token


@attrs.frozen
class Credential:
    """A user name with a password, or a token that stands for both."""

    username: str = ""
    password: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)

    @property
    def key(self) -> str:
        """Tells credentials apart without being one."""
        text = repr((self.username, self.password, self.identity_token))
        return hashlib.sha256(text.encode()).hexdigest()


class Credentials:
    """Finds the credential for a registry. Reads files when asked, never before."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Take the environment that says where the files are; this process's if None."""
        self._environ = os.environ if environ is None else environ

    def find(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential for a repository, or None to go without.

        Raises:
            InvalidInputError: A file is damaged.
            AuthenticationFailed: A credential helper failed.
        """
        keys = list(_keys(host, repository))
        for what, document in self._documents():
            found = self._in_document(what, document, keys, host)
            if found is not None:
                return found
        return None

    def _documents(self) -> Iterator[tuple[str, dict[str, object]]]:
        inline = self._environ.get("DOCKER_AUTH_CONFIG")
        if inline:
            yield "DOCKER_AUTH_CONFIG", _parse(inline.encode(), "DOCKER_AUTH_CONFIG")
        for path in self._paths():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                with open(path, "rb") as file:
                    data = file.read(_MAX_FILE_BYTES + 1)
                yield path, _parse(data, path)

    def _paths(self) -> list[str]:
        environ = self._environ
        explicit = environ.get("REGISTRY_AUTH_FILE")
        home = environ.get("HOME") or os.path.expanduser("~")
        docker = environ.get("DOCKER_CONFIG") or f"{home}/.docker"
        if explicit:
            return [explicit]
        runtime = environ.get("XDG_RUNTIME_DIR")
        config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        paths = [f"{runtime}/containers/auth.json"] if runtime else []
        return [*paths, f"{config}/containers/auth.json", f"{docker}/config.json"]

    def _in_document(
        self, what: str, document: dict[str, object], keys: list[str], host: str
    ) -> Credential | None:
        helpers = _object(document, "credHelpers", what)
        helper = next((helpers[key] for key in keys if key in helpers), None)
        store = document.get("credsStore")
        auths = _object(document, "auths", what)
        if helper is None and isinstance(store, str) and store:
            helper = store
        if helper is not None:
            server = next((key for key in keys if key in auths or key in helpers), host)
            found = self._ask_helper(str(helper), server)
            if found is not None:
                return found
        for key in keys:
            entry = auths.get(key)
            if isinstance(entry, dict) and entry:
                return _from_entry(entry, f"{what}: auths.{key}")
        return None

    def _ask_helper(self, name: str, server: str) -> Credential | None:
        if _HELPER_NAME.fullmatch(name) is None:
            raise InvalidInputError(f"credential helper {name[:80]!r} is not the name of a program")
        program = shutil.which(f"docker-credential-{name}", path=self._environ.get("PATH"))
        if program is None:
            raise AuthenticationFailed(
                f"docker-credential-{name} is not installed; install it, or remove it from the configuration"
            )
        try:
            done = subprocess.run(
                [program, "get"],
                input=server.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AuthenticationFailed(
                f"docker-credential-{name} did not answer within {_HELPER_TIMEOUT_S:.0f} s"
            ) from None
        if done.returncode != 0:
            if b"credentials not found" in done.stdout.lower() + done.stderr.lower():
                return None
            raise AuthenticationFailed(
                f"docker-credential-{name} failed for {server!r} with exit code {done.returncode}"
            )
        answer = _parse(done.stdout, f"docker-credential-{name}")
        username, secret = answer.get("Username"), answer.get("Secret")
        if not isinstance(username, str) or not isinstance(secret, str):
            raise AuthenticationFailed(f"docker-credential-{name} gave no user name and secret")
        return Credential(identity_token=secret) if username == _TOKEN_USER else Credential(username, secret)


def _keys(host: str, repository: str) -> Iterator[str]:
    """Yield the names under which credentials may be kept, the most specific first."""
    hosts = _HUB_KEYS if host in _HUB_KEYS else (host, f"https://{host}", f"https://{host}/v1/")
    path = repository
    while path:
        for name in hosts[1:2] if host in _HUB_KEYS else hosts[:1]:
            yield f"{name}/{path}"
        path = path.rpartition("/")[0]
    yield from hosts


def _parse(data: bytes, what: str) -> dict[str, object]:
    try:
        return strict_json.loads_object(data, limit=_MAX_FILE_BYTES, what="document")
    except InvalidInputError as error:
        raise InvalidInputError(f"{what}: {error}; correct it or remove it") from None


def _object(document: dict[str, object], key: str, what: str) -> dict[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what}: {key!r} is not an object")
    return value


def _from_entry(entry: dict[str, object], what: str) -> Credential | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credential(identity_token=token)
    username, password = entry.get("username"), entry.get("password")
    if isinstance(username, str) and isinstance(password, str) and username:
        return Credential(username, password)
    auth = entry.get("auth")
    if not isinstance(auth, str) or not auth:
        return None
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise InvalidInputError(f"{what}: 'auth' is not base64 of a user name, a colon and a password")
    return Credential(str(username), str(password).rstrip("\0"))
