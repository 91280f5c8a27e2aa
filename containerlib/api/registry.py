"""One registry as the caller sees it: who is logged in, what there is, and what is to go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs

from containerlib.api import registry_server
from containerlib.errors import InvalidInputError, InvalidOption, InvalidReference
from containerlib.oci.manifest import Index, parse_manifest
from containerlib.oci.platform import Platform
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.api.remote import Remote
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.credential import Credential

__all__ = ["Login", "Registry", "RemoteManifest"]


@attrs.frozen
class Login:
    """What a login did.

    Attributes:
        username: Who is logged in; empty if only a token is known.
        kept_in: Path of the file, or name of the credential helper, that keeps it; empty if this engine
            alone knows it.
        is_token: Whether an identity token is kept, and no password.
    """

    username: str
    kept_in: str
    is_token: bool


@attrs.frozen
class RemoteManifest:
    """A manifest or index of a registry, checked against its digest.

    Attributes:
        descriptor: Its media type, digest and size.
        raw: Its bytes.
        is_index: Whether it is an index of several manifests.
        manifests: Of an index: its entries, with their platforms.
        config: Of a manifest: the configuration; None for an index.
        layers: Of a manifest: the layers, lowest first.
        subject: What it refers to, if it does.
        artifact_type: What it is, if it is no container image.
        annotations: Its annotations.
    """

    descriptor: Descriptor
    raw: bytes = attrs.field(repr=False)
    is_index: bool
    manifests: tuple[Descriptor, ...]
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str
    annotations: Mapping[str, str]

    @property
    def platforms(self) -> tuple[str, ...]:
        """Of an index: the platforms of its entries."""
        return tuple(str(entry.platform) for entry in self.manifests if entry.platform is not None)


class Registry:
    """A registry, by its host. Made by `Engine.registry`; owns nothing, and needs no closing.

    It is this very registry that is asked, and none of the mirrors that the host's configuration has for it.
    Names are those of its repositories, with or without its host: ``team/tool:1`` and
    ``localhost:5000/team/tool:1`` are the same for the registry ``localhost:5000``.
    """

    serve = staticmethod(registry_server.serve)

    def __init__(self, remote: Remote, host: str) -> None:
        self._remote = remote
        self._host = _checked_host(host)

    def __repr__(self) -> str:
        return f"<Registry {self._host}>"

    @property
    def host(self) -> str:
        """Its host, with the port if that is not the usual one; ``docker.io`` for Docker Hub."""
        return self._host

    def login(
        self,
        username: str = "",
        password: str = "",
        *,
        identity_token: str = "",
        registry_token: str = "",
        store: bool = True,
    ) -> Login:
        """Log in: the registry is asked first, and what it refuses is not kept.

        This engine uses the credential before any other. A login that was there before is replaced. If the
        registry's token service gives an identity token for the password, that is kept instead.

        Args:
            username: Who.
            password: Password or access token of that user.
            identity_token: Instead of a password: a token that is exchanged for access tokens.
            registry_token: Instead of a password: a token that is shown to the registry itself.
            store: Whether to keep it for other processes, and later ones, where ``docker login`` keeps it:
                with the credential helper that the configuration names, otherwise in the file.

        Raises:
            InvalidOption: There is nothing to log in with, or too much.
            AuthenticationFailed: The registry refuses, or a helper failed. Nothing was kept.
            RegistryError: The registry cannot be reached.
            OSError: The file cannot be written.
            Offline: The engine was told to be.

        Source: docker login, containers-auth.json(5).
        """
        credential = _credential(username, password, identity_token, registry_token)
        kept, place = self._remote.login(self._host, credential, store=store)
        return Login(username, place, bool(kept.identity_token))

    def logout(self) -> bool:
        """Forget the credentials of this registry, wherever they are kept; the registry is not asked.

        Returns:
            Whether there were any.

        Raises:
            InvalidInputError: ``DOCKER_AUTH_CONFIG`` has one, which cannot be taken from there.
            AuthenticationFailed: A credential helper failed.
            OSError: A file cannot be written.
        """
        return self._remote.logout(self._host)

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository, in the order of the registry.

        Raises:
            InvalidReference: It has a tag or a digest.
            RemoteNotFound: There is no such repository.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request for each page, usually of a thousand tags.
        """
        reference = self._reference(repository, default_tag=None)
        if reference.tag is not None or reference.digest is not None:
            raise InvalidReference(f"{repository!r}: give a repository, without tag and digest")
        return self._remote.tags(reference)

    def catalog(self) -> list[str]:
        """The names of all repositories that the registry shows to this user. Many registries refuse this.

        Raises:
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request for each page, usually of a thousand names.
        """
        return self._remote.catalog(self._host)

    def resolve(self, name: str) -> Descriptor:
        """What a tag or digest means there now; without one, the tag is ``latest``.

        Raises:
            RemoteNotFound: There is no such image; the message names the tags that there are.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request without a body.
        """
        return self._remote.resolve(self._reference(name))

    def manifest(self, name: str) -> RemoteManifest:
        """The manifest or index that a tag or digest means there now.

        Raises:
            RemoteNotFound: There is none; the message names the tags that there are.
            VerificationError: It is not what its digest says.
            InvalidManifest: It is damaged, ambiguous, or of a kind that is not read.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.
        """
        descriptor, raw = self._remote.manifest(self._reference(name))
        document = parse_manifest(raw, descriptor.media_type)
        if isinstance(document, Index):
            manifests, annotations = document.manifests, document.annotations
            subject, kind = document.subject, document.artifact_type
            return RemoteManifest(descriptor, raw, True, manifests, None, (), subject, kind, annotations)
        return RemoteManifest(
            descriptor,
            raw,
            is_index=False,
            manifests=(),
            config=document.config,
            layers=document.layers,
            subject=document.subject,
            artifact_type=document.artifact_type,
            annotations=document.annotations,
        )

    def delete(self, name: str) -> None:
        """Remove a tag, or an image with all its tags if the name has a digest.

        Layers stay until the registry collects its garbage. Many registries cannot remove a single tag, or
        anything at all.

        Args:
            name: With a tag or a digest; nothing is removed by default.

        Raises:
            InvalidReference: It has neither, or both.
            RemoteNotFound: There is no such image.
            RegistryError: The registry cannot be reached, or does not do that.
            Offline: The engine was told to be.
        """
        reference = self._reference(name, default_tag=None)
        if (reference.tag is None) == (reference.digest is None):
            raise InvalidReference(f"{name!r}: give a tag or a digest, and not both, to say what is removed")
        self._remote.delete(reference)

    def referrers(self, name: str, artifact_type: str | None = None) -> list[Descriptor]:
        """What refers to an image: signatures, attestations and the like.

        Args:
            name: Of the image, with a tag or a digest.
            artifact_type: Only what is of this type.

        Returns:
            Descriptors with their artifact types and annotations; also those that clients keep under a tag,
            if the registry does not list referrers.

        Raises:
            RemoteNotFound: There is no image with this tag.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.
        """
        return self._remote.referrers(self._reference(name), artifact_type)

    def copy(
        self,
        source: str,
        target: str,
        *,
        platforms: Literal["all"] | Sequence[str] = "all",
        referrers: bool = False,
        progress: Progress | None = None,
    ) -> Descriptor:
        """Copy an image of this registry to another place, here or in any other registry.

        It goes from one to the other without being kept or unpacked here, in bounded memory. What the target
        has already is not sent, and within one registry nothing is. Copying again what has not changed
        costs one request for each part.

        Args:
            source: Name in this registry, with a tag or a digest.
            target: Name in this registry, or with a host in that one; with a tag, else ``latest``.
            platforms: Such as ``["linux/arm64"]``. For one the tag means that image alone, for several a new
                index of them. ``"all"`` copies everything, and the digest stays the same.
            referrers: Whether signatures and whatever else refers to the image are copied as well.
            progress: Called with a `TransferEvent` for each step of each blob, one at a time.

        Returns:
            What the target means now.

        Raises:
            InvalidReference: A name is none, or the target has a digest.
            RemoteNotFound: There is no such image.
            PlatformNotFound: It is not made for one of the platforms; the error lists those there are.
            VerificationError: The registry sent something else than it promised.
            RegistryError: One of the registries cannot be reached, or refuses. What was copied by then has
                no name in the target.
            Offline: The engine was told to be.

        Source: OCI distribution-spec 1.1, "Push".
        """
        place = Reference.parse(target) if _has_host(target) else self._reference(target)
        chosen = None if platforms == "all" else [Platform.parse(text) for text in platforms]
        if chosen is not None and (isinstance(platforms, str) or not chosen):
            raise InvalidOption("platforms", platforms, "give 'all' or a list of at least one platform")
        return self._remote.copy(
            self._reference(source), place, platforms=chosen, with_referrers=referrers, progress=progress
        )

    def _reference(self, name: str, default_tag: str | None = "latest") -> Reference:
        if _has_host(name):
            reference = Reference.parse(name, default_tag=default_tag)
            if reference.registry.lower() != self._host:
                raise InvalidReference(f"{name!r} is of another registry than {self._host}")
            return reference
        return Reference.parse(f"{self._host}/{name}", default_tag=default_tag)


def _has_host(name: str) -> bool:
    first, slash, _rest = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _checked_host(host: str) -> str:
    """Return the one form of a registry's host, also for the address that Docker calls its own registry."""
    from containerlib.registry.credential import normal_key  # noqa: PLC0415 - as for all of the registry

    key = normal_key(host)
    if key is None or "/" in key:
        raise InvalidReference(f"registry {host[:200]!r} is not of the form host or host:port")
    if Reference.parse(f"{key}/x", default_tag=None).registry != key:
        raise InvalidReference(
            f"registry {host!r} has neither a dot nor a port, so image names cannot have it; write {key}:443"
        )
    return key


def _credential(username: str, password: str, identity_token: str, registry_token: str) -> Credential:
    from containerlib.registry.credential import Credential  # noqa: PLC0415 - as for all of the registry

    if [bool(password), bool(identity_token), bool(registry_token)].count(True) != 1:
        raise InvalidOption("password", "***", "give a password, an identity token or a registry token")
    if password and not username:
        raise InvalidOption("username", username, "a password needs the name of its user")
    try:
        return Credential(username, password, identity_token, registry_token)
    except InvalidInputError as error:
        raise InvalidOption("username", username, str(error)) from None
