"""Image references by Docker's rules: ``alpine`` is ``docker.io/library/alpine:latest``.

A `Reference` is text that passed the grammar, so no part of it can climb out of a directory or carry a
control character. Knows nothing of registries beyond their names.
"""

from __future__ import annotations

import re

import attrs

from containerlib.errors import InvalidDigest, InvalidReference
from containerlib.oci.digest import Digest

__all__ = ["DEFAULT_REGISTRY", "DEFAULT_TAG", "Reference", "is_repository", "is_tag"]

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_OFFICIAL = "library/"
_LEGACY_REGISTRY = "index.docker.io"
_MAX_NAME_LENGTH = 255
_MAX_LENGTH = 1024

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@attrs.frozen
class Reference:
    """Registry, repository and a tag, a digest or both.

    ``str()`` gives the canonical form. Made by `parse`, which checks every part.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str | None = DEFAULT_TAG) -> Reference:
        """Parse what a person typed.

        Args:
            text: Such as ``alpine``, ``localhost:5000/a/b:1``, ``alpine@sha256:...``.
            default_tag: Tag if the text has neither tag nor digest; None leaves the tag open.

        Raises:
            InvalidReference: The text breaks the grammar or a limit.
        """
        if not text or len(text) > _MAX_LENGTH:
            raise InvalidReference(f"image reference {text[:80]!r} is empty or too long")
        if _IDENTIFIER.fullmatch(text):
            raise InvalidReference(f"image reference {text!r} is an image id, not a name")
        name, tag, digest = _split(text)
        registry, repository = _registry_and_repository(name, text)
        if tag is None and digest is None:
            tag = default_tag
        return cls(registry, repository, tag, digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: without the default registry and without ``library/``."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        return self.repository.removeprefix(_OFFICIAL)

    @property
    def canonical(self) -> str:
        """The complete form, the same for every spelling of one reference."""
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        """The complete form as Docker shows it; parsing it gives the same reference."""
        return self.familiar_name + self._suffix

    def with_digest(self, digest: Digest) -> Reference:
        """Return this reference pinned to `digest`."""
        return attrs.evolve(self, digest=digest)

    def __str__(self) -> str:
        return self.canonical

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return tag + digest


def is_tag(text: str) -> bool:
    """Say whether `text` can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Say whether `text` can be the name of a repository, without a registry."""
    return len(text) <= _MAX_NAME_LENGTH and _REPOSITORY.fullmatch(text) is not None


def _split(text: str) -> tuple[str, str | None, Digest | None]:
    rest, at, digest_text = text.partition("@")
    try:
        digest = Digest(digest_text) if at else None
    except InvalidDigest as error:
        raise InvalidReference(f"image reference {text!r}: {error}") from None
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        return rest, None, digest
    if _TAG.fullmatch(tag) is None:
        raise InvalidReference(
            f"image reference {text!r}: tag {tag!r} is not 1 to 128 letters, digits, '_', '.', '-'"
        )
    return name, tag, digest


def _registry_and_repository(name: str, text: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and _is_registry(first):
        registry, repository = first, rest
    else:
        registry, repository = DEFAULT_REGISTRY, name
    if registry == _LEGACY_REGISTRY:
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = _OFFICIAL + repository
    if _REGISTRY.fullmatch(registry) is None:
        raise InvalidReference(f"image reference {text!r}: {registry!r} is not a registry host")
    if _REPOSITORY.fullmatch(repository) is None:
        hint = "must be lower case" if repository != repository.lower() else "is not a repository name"
        raise InvalidReference(f"image reference {text!r}: {repository!r} {hint}")
    if len(registry) + 1 + len(repository) > _MAX_NAME_LENGTH:
        raise InvalidReference(
            f"image reference {text[:80]!r}...: name is over {_MAX_NAME_LENGTH} characters"
        )
    return registry, repository


def _is_registry(first: str) -> bool:
    """Say whether the part before the first slash names a host, by Docker's rule."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()
