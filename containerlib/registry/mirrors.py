"""From the name of an image to the places where it is, as the host is configured.

A reference stays what it was: only where its bytes are fetched changes. Values in and out; the files are read
once, by `RegistriesConfig.load`.

Source: containers-registries.conf(5).
"""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError, InvalidReference, RegistryBlocked
from containerlib.oci.reference import DEFAULT_REGISTRY, Reference
from containerlib.registry.config_file import home_directory
from containerlib.registry.registries_conf import (
    RegistriesFile,
    Registry,
    find_files,
    has_registry,
    is_host,
    read_files,
)
from containerlib.registry.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["RegistriesConfig"]

_HUB_HOST = "registry-1.docker.io"


@attrs.frozen
class RegistriesConfig:
    """Where registries are, and what short names mean.

    Attributes:
        settings: What the files say.
        insecure_hosts: Further hosts that may do without valid TLS.
    """

    settings: RegistriesFile = attrs.field(factory=RegistriesFile)
    insecure_hosts: frozenset[str] = frozenset()

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        home: str | None = None,
        paths: Sequence[str] | None = None,
    ) -> RegistriesConfig:
        """Read the configuration of this host.

        Args:
            environ: Environment to go by; None means that of this process.
            home: Home directory; None means that of the environment or the user.
            paths: The files to read instead, in the order in which they are merged. Each must exist.

        Raises:
            InvalidInputError: A file cannot be read or does not have its form.
        """
        if paths is None:
            environ = os.environ if environ is None else environ
            paths = find_files(environ, home or home_directory(environ))
        else:
            missing = [path for path in paths if not os.path.exists(path)]
            if missing:
                raise InvalidInputError(f"{missing[0]}: no such file")
        return cls(read_files(paths))

    @property
    def credential_helpers(self) -> tuple[str, ...]:
        """Names of the helpers that are asked for every registry; empty if nothing is said."""
        return self.settings.credential_helpers

    def sources(self, reference: Reference) -> list[Source]:
        """Return where to pull `reference` from, in the order in which to try.

        Mirrors come first, the registry itself last.

        Raises:
            RegistryBlocked: The configuration forbids the image.
            InvalidInputError: A location makes no reference of this one, or would change its tag.
        """
        registry = self._matching(reference)
        if registry is None:
            return [self._source(reference, insecure=None)]
        found = []
        for mirror in registry.mirrors:
            if mirror.pull_from == "all" or (mirror.pull_from == "digest-only") == (
                reference.digest is not None
            ):
                there = _rewritten(reference, registry.prefix, mirror.location)
                found.append(self._source(there, insecure=mirror.insecure, is_mirror=True))
        there = _rewritten(reference, registry.prefix, registry.location)
        return [*found, self._source(there, insecure=registry.insecure)]

    def push_source(self, reference: Reference) -> Source:
        """Return where to push `reference` to: always the registry that it names.

        Raises:
            RegistryBlocked: The configuration forbids the image.
        """
        registry = self._matching(reference)
        return self._source(reference, insecure=None if registry is None else registry.insecure)

    def host_source(self, host: str) -> Source:
        """Return where the registry `host` itself is reached, whatever is done there.

        Raises:
            RegistryBlocked: The configuration forbids all of it.
        """
        return attrs.evolve(self.push_source(Reference(host, "")), repository="")

    def candidates(self, text: str) -> list[str]:
        """Return the full names that `text` may mean, in the order in which to try.

        A name with a registry means itself. Without any configuration, a short name is one of Docker Hub's.
        Tag and digest are kept; where there is none, none is added.

        Raises:
            InvalidReference: The text is no reference; or it is short, and the configuration allows no such
                names or wants a person to choose.
        """
        reference = Reference.parse(text, default_tag=None)
        if has_registry(text):
            return [reference.canonical]
        suffix = reference.canonical.removeprefix(reference.name)
        short = text.removesuffix(suffix)
        alias = self.settings.aliases.get(short)
        search = self.settings.search
        if alias:
            return [Reference.parse(alias + suffix, default_tag=None).canonical]
        if search is None:
            return [reference.canonical]
        if not search:
            raise InvalidReference(
                f"image reference {text!r} names no registry, has no alias, and the configuration's "
                "unqualified-search-registries is empty; write the full name"
            )
        names = [Reference.parse(f"{host}/{text}", default_tag=None).canonical for host in search]
        found = list(dict.fromkeys(names))
        if len(found) > 1 and self.settings.short_name_mode == "enforcing":
            raise InvalidReference(
                f"image reference {text!r} may mean {' or '.join(found)}, and short-name-mode is enforcing; "
                "write one of these"
            )
        return found

    def with_insecure(self, hosts: Iterable[str]) -> RegistriesConfig:
        """Return this configuration with more hosts that may do without valid TLS.

        Raises:
            InvalidInputError: One is not of the form host or host:port.
        """
        hosts = [host.lower() for host in hosts]
        for host in hosts:
            if not is_host(host):
                raise InvalidInputError(f"insecure registry {host!r} is not of the form host or host:port")
        reached = (_HUB_HOST if host == DEFAULT_REGISTRY else host for host in hosts)
        return attrs.evolve(self, insecure_hosts=self.insecure_hosts.union(reached))

    def _matching(self, reference: Reference) -> Registry | None:
        """Return the settings with the longest prefix of `reference`, if they do not forbid it."""
        name = reference.canonical
        registries = self.settings.registries.values()
        matches = [(_match_length(name, entry.prefix), len(entry.prefix), entry) for entry in registries]
        # Of equal matches the one without a wildcard wins, then the wildcard that leaves the least open.
        length, _size, registry = max(
            matches,
            key=lambda match: (match[0], not match[2].prefix.startswith("*"), match[1]),
            default=(0, 0, None),
        )
        if registry is None or not length:
            return None
        if registry.blocked:
            raise RegistryBlocked(f"{name}: registries.conf blocks what begins with {registry.prefix!r}")
        return registry

    def _source(self, reference: Reference, *, insecure: bool | None, is_mirror: bool = False) -> Source:
        host = _HUB_HOST if reference.registry == DEFAULT_REGISTRY else reference.registry
        if host.lower() in self.insecure_hosts:
            insecure = True
        elif insecure is None:
            insecure = _is_loopback(host)
        return Source(
            host, reference.repository, verify_tls=not insecure, allows_http=insecure, is_mirror=is_mirror
        )


def _match_length(name: str, prefix: str) -> int:
    """Return how much of a full name a prefix covers; 0 if it is none of that name.

    A prefix ends where a part of the name ends. A host without a port is not the same host with one; only a
    wildcard stands for any port.
    """
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        domain = host if host.startswith("[") else host.partition(":")[0]
        return len(domain) if domain.lower().endswith(prefix[1:].lower()) else 0
    # Host names have no case, repository names are lower case.
    host_length = len(prefix.partition("/")[0])
    if name[:host_length].lower() != prefix[:host_length].lower() or name[host_length:].find(
        prefix[host_length:]
    ):
        return 0
    ends = "/" if len(prefix) == host_length else "/:@"
    return len(prefix) if name[len(prefix) : len(prefix) + 1] in ("", *ends) else 0


def _rewritten(reference: Reference, prefix: str, location: str) -> Reference:
    if not location:
        return reference
    name = reference.canonical
    text = location + name[_match_length(name, prefix) :]
    try:
        there = Reference.parse(text, default_tag=None)
    except InvalidReference as error:
        raise InvalidInputError(f"registries.conf: location {location!r} for {name}: {error}") from None
    if (there.tag, there.digest) != (reference.tag, reference.digest):
        raise InvalidInputError(f"registries.conf: location {location!r} would change the tag of {name}")
    return there


def _is_loopback(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
