"""``registries.conf``: where registries really are, as the host is configured.

Parses files of version 2 and merges them. Types are checked strictly, unknown keys are left alone. What the
settings mean for a reference is the business of `mirrors`.

Source: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
import re
import tomllib
from typing import TYPE_CHECKING, Literal, NoReturn, cast

import attrs

from containerlib.errors import InvalidInputError, InvalidReference
from containerlib.oci.reference import Reference
from containerlib.registry.config_file import read_config_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Endpoint",
    "RegistriesFile",
    "Registry",
    "ShortNameMode",
    "find_files",
    "has_registry",
    "is_host",
    "read_files",
]

ShortNameMode = Literal["enforcing", "permissive", "disabled"]
PullFrom = Literal["all", "digest-only", "tag-only"]

SYSTEM_DIRECTORY = "/etc/containers"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_WILDCARD = re.compile(rf"\*(?:\.{_LABEL})+")
_MODES = ("enforcing", "permissive", "disabled")
_PULL_FROM = ("all", "digest-only", "tag-only")


@attrs.frozen
class Endpoint:
    """A mirror: another place that has the images below a prefix.

    Attributes:
        location: What stands there instead of the prefix.
        insecure: Whether that host may do without valid TLS; None if nothing is said.
        pull_from: For which references it is asked.
    """

    location: str
    insecure: bool | None = None
    pull_from: PullFrom = "all"


@attrs.frozen
class Registry:
    """The settings for all images whose names begin with a prefix.

    Attributes:
        prefix: Host with or without a path, or ``*.`` and a domain.
        location: What stands there instead of the prefix; empty: nothing is replaced.
        insecure: As for a mirror.
        blocked: Whether these images are forbidden.
        mirrors: In the order in which they are tried.
    """

    prefix: str
    location: str = ""
    insecure: bool | None = None
    blocked: bool = False
    mirrors: tuple[Endpoint, ...] = ()


@attrs.frozen
class RegistriesFile:
    """What one file says, or several that were merged; None or empty where nothing is said.

    Attributes:
        registries: Settings by prefix.
        search: Registries that are tried for a name without one.
        aliases: Full names of short names; an empty one takes back an earlier alias.
        short_name_mode: What to do about a short name with several candidates.
        credential_helpers: Helpers that are asked for every registry.
    """

    registries: Mapping[str, Registry] = attrs.field(factory=dict)
    search: tuple[str, ...] | None = None
    aliases: Mapping[str, str] = attrs.field(factory=dict)
    short_name_mode: ShortNameMode | None = None
    credential_helpers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, *, what: str) -> RegistriesFile:
        """Check the content of the file `what`.

        Raises:
            InvalidInputError: It is not TOML, is of version 1, or a key does not have its form.
        """
        table = _Table(_parse_toml(data, what), what, "")
        if "registries" in table.values:
            raise InvalidInputError(
                f"{what}: key 'registries' is of version 1 of this format, which is not supported; write "
                "[[registry]] tables and unqualified-search-registries instead"
            )
        search = table.texts("unqualified-search-registries")
        for host in search or ():
            if not is_host(host):
                table.refuse(
                    "unqualified-search-registries", f"{host!r} is not of the form host or host:port"
                )
        registries: dict[str, Registry] = {}
        for entry in table.tables("registry"):
            registry = _parse_registry(entry)
            if registries.setdefault(registry.prefix, registry) != registry:
                raise InvalidInputError(f"{what}: two different [[registry]] tables for {registry.prefix!r}")
        return cls(
            registries,
            search,
            _parse_aliases(table),
            cast("ShortNameMode | None", table.choice("short-name-mode", _MODES)),
            table.texts("credential-helpers") or (),
        )

    def merged_with(self, later: RegistriesFile) -> RegistriesFile:
        """Return these settings with those of a file that is read later and wins."""
        return RegistriesFile(
            {**self.registries, **later.registries},
            self.search if later.search is None else later.search,
            {**self.aliases, **later.aliases},
            later.short_name_mode or self.short_name_mode,
            later.credential_helpers or self.credential_helpers,
        )


def has_registry(name: str) -> bool:
    """Say whether a name begins with a registry, by the same rule as for references."""
    first, slash, _rest = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())


def is_host(text: str) -> bool:
    """Say whether `text` is of the form ``host`` or ``host:port``."""
    return _HOST.fullmatch(text) is not None


def find_files(environ: Mapping[str, str], home: str, *, system: str = SYSTEM_DIRECTORY) -> list[str]:
    """Return the files that make up the configuration, in the order in which they are merged.

    ``CONTAINERS_REGISTRIES_CONF`` or the user's own file stand for the system's file. With a file of their
    own, users do without the system's directory as well.

    Raises:
        InvalidInputError: ``CONTAINERS_REGISTRIES_CONF`` names nothing.
    """
    user = os.path.join(home, ".config/containers")
    user_file = os.path.join(user, "registries.conf")
    explicit = environ.get("CONTAINERS_REGISTRIES_CONF", "")
    if explicit:
        if not os.path.exists(explicit):
            raise InvalidInputError(f"CONTAINERS_REGISTRIES_CONF names {explicit!r}, which does not exist")
        main, directories = os.path.abspath(explicit), [system, user]
    elif os.path.exists(user_file):
        main, directories = user_file, [user]
    else:
        main, directories = os.path.join(system, "registries.conf"), [system, user]
    drop_ins = (os.path.join(directory, "registries.conf.d") for directory in directories)
    return [main, *(path for directory in drop_ins for path in _list_directory(directory))]


def read_files(paths: Sequence[str]) -> RegistriesFile:
    """Read and merge files; one that does not exist says nothing.

    Raises:
        InvalidInputError: A file cannot be read or does not have its form.
    """
    result = RegistriesFile()
    for path in paths:
        data = read_config_file(path)
        if data is not None:
            result = result.merged_with(RegistriesFile.parse(data, what=path))
    return result


def _list_directory(directory: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InvalidInputError(f"{directory}: cannot be read: {error.strerror}") from None
    paths = (os.path.join(directory, name) for name in names)
    return [path for path in paths if not os.path.isdir(path)]


def _parse_toml(data: bytes, what: str) -> dict[str, object]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise InvalidInputError(f"{what}: nested too deeply") from None
    except ValueError as error:
        raise InvalidInputError(f"{what}: not TOML: {error}") from None


def _parse_registry(table: _Table) -> Registry:
    location, prefix = table.location("location"), table.location("prefix")
    if not prefix and not location:
        table.refuse("location", "missing, and so is 'prefix'")
    if location.startswith("*"):
        table.refuse("location", f"{location!r} has a wildcard; only 'prefix' may have one")
    if prefix.startswith("*"):
        if _WILDCARD.fullmatch(prefix) is None:
            table.refuse("prefix", f"{prefix!r} has a wildcard and is not of the form *.example.com")
    elif not location:
        table.refuse("location", f"missing; only a prefix like *.example.com needs none, not {prefix!r}")
    by_digest_only = table.flag("mirror-by-digest-only") or False
    mirrors = tuple(_parse_mirror(mirror, by_digest_only=by_digest_only) for mirror in table.tables("mirror"))
    insecure, blocked = table.flag("insecure"), table.flag("blocked")
    return Registry(prefix or location, location, insecure, blocked or False, mirrors)


def _parse_mirror(table: _Table, *, by_digest_only: bool) -> Endpoint:
    location = table.location("location")
    if not location or location.startswith("*"):
        table.refuse("location", "missing" if not location else f"{location!r} has a wildcard")
    pull_from = table.choice("pull-from-mirror", _PULL_FROM)
    if by_digest_only and pull_from is not None:
        table.refuse(
            "pull-from-mirror", "contradicts 'mirror-by-digest-only' of the registry; keep one of them"
        )
    default = "digest-only" if by_digest_only else "all"
    return Endpoint(location, table.flag("insecure"), cast("PullFrom", pull_from or default))


def _parse_aliases(table: _Table) -> dict[str, str]:
    aliases = table.values.get("aliases", {})
    if not isinstance(aliases, dict):
        table.refuse("aliases", "not a table")
    for name, value in aliases.items():
        if not isinstance(value, str):
            table.refuse("aliases", f"{name!r} is not a text")
        try:
            is_short = not has_registry(name) and _has_only_name(name)
            is_full = not value or (has_registry(value) and _has_only_name(value))
        except InvalidReference as error:
            table.refuse("aliases", str(error))
        if not is_short:
            table.refuse("aliases", f"{name!r} is not a short name without tag and digest")
        if not is_full:
            table.refuse("aliases", f"{name!r} = {value!r}: not a full name without tag and digest")
    return cast("dict[str, str]", aliases)


def _has_only_name(text: str) -> bool:
    reference = Reference.parse(text, default_tag=None)
    return reference.tag is None and reference.digest is None


@attrs.frozen
class _Table:
    """A table of a file, with typed access to its values."""

    values: Mapping[str, object]
    what: str
    where: str

    def refuse(self, key: str, reason: str) -> NoReturn:
        raise InvalidInputError(f"{self.what}: key {self.where + key!r}: {reason}")

    def text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            self.refuse(key, "not a text")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            self.refuse(key, "neither true nor false")
        return value

    def texts(self, key: str) -> tuple[str, ...] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.refuse(key, "not a list of texts")
        return tuple(value)

    def tables(self, key: str) -> list[_Table]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.refuse(key, "not a list of tables")
        return [_Table(item, self.what, f"{self.where}{key}[{index}].") for index, item in enumerate(value)]

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        value = self.text(key)
        if value and value not in choices:
            self.refuse(key, f"{value!r} is not one of {', '.join(choices)}")
        return value or None

    def location(self, key: str) -> str:
        """Return a place: a host with or without a path; empty if there is none."""
        value = self.text(key).rstrip("/")
        if "://" in value:
            self.refuse(key, f"{value!r} has a scheme; write host[:port][/path]")
        host = value.partition("/")[0]
        is_named = "." in host or ":" in host or host == "localhost"
        if value and not value.startswith("*") and not (is_host(host) and is_named):
            self.refuse(key, f"{value!r} does not begin with a host that has a dot or a port, nor localhost")
        return value
