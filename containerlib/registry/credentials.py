"""The credentials of this user for a registry: one question, many places where the answer may be.

Asked in order: logins of this object, ``DOCKER_AUTH_CONFIG``, then the files of `auth_file` and the helpers
that they name. Nothing is read before the first question, and a helper is run only for the registry in
question.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError
from containerlib.registry.auth_file import AuthFile, auth_files, login_file
from containerlib.registry.config_file import home_directory
from containerlib.registry.credential import Credential, normal_key
from containerlib.registry.credential_helper import CredentialHelper
from containerlib.registry.docker_config import (
    DockerConfig,
    HelperUse,
    parse_document,
    with_entry,
    without_entry,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["AUTH_FILES", "Credential", "Credentials", "Memory"]

AUTH_FILES = "containers-auth.json"
"""Among the names of default helpers, this one stands for the files."""

_INLINE = "DOCKER_AUTH_CONFIG"


@attrs.define
class Memory:
    """What is known beside what is kept; may be shared by objects, one after the other or at the same time.

    Attributes:
        logins: What was logged in, by registry.
        identities: The newest identity token that was given for a credential, by the key of that.
    """

    logins: dict[str, Credential] = attrs.field(factory=dict, repr=False)
    identities: dict[str, str] = attrs.field(factory=dict, repr=False)


class Credentials:
    """Finds, keeps and forgets credentials; safe for threads. Made by `load`."""

    def __init__(
        self,
        environ: Mapping[str, str],
        home: str,
        *,
        default_helpers: Sequence[str] = (AUTH_FILES,),
        memory: Memory | None = None,
    ) -> None:
        self._environ = dict(environ)
        self._files = auth_files(environ, home)
        path = login_file(environ, home)
        self._login_file = next(file for file in self._files if file.path == path)
        self._default_helpers = tuple(default_helpers) or (AUTH_FILES,)
        self._memory = memory or Memory()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Credentials(files={[file.path for file in self._files]!r})"

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        home: str | None = None,
        default_helpers: Sequence[str] = (AUTH_FILES,),
        memory: Memory | None = None,
    ) -> Credentials:
        """Prepare for questions; reads no file yet.

        Args:
            environ: Environment to go by; None means that of this process.
            home: Home directory; None means that of the environment or the user.
            default_helpers: Helpers that are asked for every registry, in order: ``credential-helpers`` of
                registries.conf.
            memory: What earlier objects know, which this one uses and changes as well.
        """
        environ = os.environ if environ is None else environ
        home = home or home_directory(environ)
        return cls(environ, home, default_helpers=default_helpers, memory=memory)

    def find(self, host: str, repository: str = "") -> Credential | None:
        """Return the credential for a repository, or None to go there without one.

        Args:
            host: ``name``, ``name:port``; every name of Docker Hub means the same.
            repository: Entries for a namespace of the host win over those for all of it.

        Raises:
            InvalidInputError: A file on the way to the answer does not have its form.
            AuthenticationFailed: A helper that must be asked failed.

        Cost: one system call for each file, and one process for each helper asked. Keep the answer.
        """
        key = _host_key(host)
        with self._lock:
            login = self._memory.logins.get(key)
        if login is not None:
            return login
        found = self._find_inline(key, repository)
        for helper in () if found is not None else self._default_helpers:
            if helper == AUTH_FILES:
                found = self._find_in_files(key, repository)
            else:
                found = self._default_helper(helper).get(key)
            if found is not None:
                break
        return found

    def login(self, host: str, credential: Credential, *, persist: bool) -> str:
        """Use `credential` for `host` from now on, before any other.

        Args:
            host: As for `find`.
            credential: What to show there.
            persist: Whether to keep it for other processes and later ones: with the helper that the user's
                configuration names for the host, otherwise in the file.

        Returns:
            The path of the file, or the program that keeps it; empty if it is in memory only.

        Raises:
            InvalidInputError: The file does not have its form, or a helper cannot keep such a credential.
            AuthenticationFailed: The helper failed.
            OSError: The file cannot be written.
        """
        key = _host_key(host)
        kept = self._persist(key, credential) if persist else ""
        with self._lock:
            self._memory.logins[key] = credential
        return kept

    def newest_identity(self, credential: Credential) -> str:
        """Return the identity token that a token service has given for `credential`; empty if none has.

        One that stands for a password, or that replaces the credential's own: some services let each be used
        only once.
        """
        return self._memory.identities.get(credential.key, "")

    def note_identity(self, credential: Credential, identity: str) -> None:
        """Remember the identity token that a token service has given for `credential`."""
        self._memory.identities[credential.key] = identity

    def logout(self, host: str) -> bool:
        """Forget the credentials of `host` wherever they are kept; return whether there were any.

        Entries for namespaces of the host stay.

        Raises:
            InvalidInputError: A file does not have its form, or ``DOCKER_AUTH_CONFIG`` has a credential for
                the host, which cannot be taken from there.
            AuthenticationFailed: A helper failed.
            OSError: A file cannot be written.
        """
        key = _host_key(host)
        inline = self._inline()
        if inline is not None and key in inline.auths:
            raise InvalidInputError(f"{_INLINE} has a credential for {key!r}; unset it to log out")
        configs = [(file, config) for file in self._files if (config := file.read()) is not None]
        # Before the files change: they say what a helper calls the registry.
        helpers = list(self._helpers_of(key, inline, [config for _, config in configs]))
        with self._lock:
            is_known = self._memory.logins.pop(key, None) is not None
        for file, config in configs:
            if key in config.servers:
                is_known |= key in config.auths
                _remove(file, key)
        for helper, server in helpers:
            if helper.get(server) is not None:
                helper.erase(server)
                is_known = True
        return is_known

    def _find_inline(self, key: str, repository: str) -> Credential | None:
        inline = self._inline()
        return None if inline is None else self._find_in(inline, key, repository)

    def _find_in_files(self, key: str, repository: str) -> Credential | None:
        for file in self._files:
            config = file.read()
            found = None if config is None else self._find_in(config, key, repository)
            if found is not None:
                return found
        return None

    def _find_in(self, config: DockerConfig, key: str, repository: str) -> Credential | None:
        use = config.helper_for(key)
        if use is not None:
            found = self._helper(use).get(use.server)
            if found is not None or use.is_only:
                return found
        return config.credential_for(key, repository)

    def _persist(self, key: str, credential: Credential) -> str:
        first = self._default_helpers[0]
        if first != AUTH_FILES:
            helper = self._default_helper(first)
            helper.store(key, credential)
            return helper.program
        file, config = self._file_for_login(key)
        use = config.helper_for(key)
        if use is None:
            file.edit(lambda document: with_entry(document, key, credential))
            return file.path
        helper = self._helper(use)
        helper.store(use.server, credential)
        file.edit(lambda document: with_entry(document, key, None))
        return helper.program

    def _file_for_login(self, key: str) -> tuple[AuthFile, DockerConfig]:
        """Return the file that a login is written to: an older entry must not win over it later."""
        for file in self._files[: self._files.index(self._login_file)]:
            config = file.read()
            if config is not None and key in config.auths:
                return file, config
        return self._login_file, self._login_file.read() or DockerConfig(self._login_file.path)

    def _helpers_of(
        self, key: str, inline: DockerConfig | None, configs: Sequence[DockerConfig]
    ) -> Iterator[tuple[CredentialHelper, str]]:
        """Give each helper that may keep a credential for `key`, and what it calls the registry."""
        seen: set[tuple[str, str]] = set()
        for config in [*([] if inline is None else [inline]), *configs]:
            use = config.helper_for(key)
            if use is not None and (use.name, use.server) not in seen:
                seen.add((use.name, use.server))
                yield self._helper(use), use.server
        for name in self._default_helpers:
            if name != AUTH_FILES and (name, key) not in seen:
                yield self._default_helper(name), key

    def _inline(self) -> DockerConfig | None:
        text = self._environ.get(_INLINE, "")
        if not text:
            return None
        document = parse_document(text.encode("utf-8", "surrogateescape"), what=_INLINE)
        return DockerConfig.parse(document, what=_INLINE)

    def _helper(self, use: HelperUse) -> CredentialHelper:
        return CredentialHelper(use.name, self._environ, where=use.where)

    def _default_helper(self, name: str) -> CredentialHelper:
        return CredentialHelper(name, self._environ, where="registries.conf: key 'credential-helpers'")


def _host_key(host: str) -> str:
    key = normal_key(host)
    if key is None or "/" in key:
        raise InvalidInputError(f"registry {host[:200]!r} is not of the form host or host:port")
    return key


def _remove(file: AuthFile, key: str) -> None:
    file.edit(lambda document: without_entry(document, key, is_legacy=file.is_legacy))
