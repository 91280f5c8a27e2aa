"""One registry as the caller sees it: who is logged in, what there is, and what is to go."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio.loop import call, transfer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from containerlib.api import registry as sync_module
    from containerlib.api.registry import Login, RemoteManifest
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
__all__ = ["Registry"]


class Registry:
    """A registry, by its host. Made by `Engine.registry`; owns nothing, and needs no closing.

    It is this very registry that is asked, and none of the mirrors that the host's configuration has for it.
    Names are those of its repositories, with or without its host: ``team/tool:1`` and
    ``localhost:5000/team/tool:1`` are the same for the registry ``localhost:5000``.
    """

    sync: sync_module.Registry

    def __init__(self, sync: sync_module.Registry) -> None:
        """Take over a handle."""
        self.sync = sync

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    @property
    def host(self) -> str:
        """Its host, with the port if that is not the usual one; ``docker.io`` for Docker Hub."""
        return self.sync.host

    async def login(
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
        return await call(
            lambda: self.sync.login(
                username, password, identity_token=identity_token, registry_token=registry_token, store=store
            )
        )

    async def logout(self) -> bool:
        """Forget the credentials of this registry, wherever they are kept; the registry is not asked.

        Returns:
            Whether there were any.

        Raises:
            InvalidInputError: ``DOCKER_AUTH_CONFIG`` has one, which cannot be taken from there.
            AuthenticationFailed: A credential helper failed.
            OSError: A file cannot be written.
        """
        return await call(self.sync.logout)

    async def tags(self, repository: str) -> list[str]:
        """All tags of a repository, in the order of the registry.

        Raises:
            InvalidReference: It has a tag or a digest.
            RemoteNotFound: There is no such repository.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request for each page, usually of a thousand tags.
        """
        return await call(lambda: self.sync.tags(repository))

    async def catalog(self) -> list[str]:
        """The names of all repositories that the registry shows to this user. Many registries refuse this.

        Raises:
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request for each page, usually of a thousand names.
        """
        return await call(self.sync.catalog)

    async def resolve(self, name: str) -> Descriptor:
        """What a tag or digest means there now; without one, the tag is ``latest``.

        Raises:
            RemoteNotFound: There is no such image; the message names the tags that there are.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.

        Cost: one request without a body.
        """
        return await call(lambda: self.sync.resolve(name))

    async def manifest(self, name: str) -> RemoteManifest:
        """The manifest or index that a tag or digest means there now.

        Raises:
            RemoteNotFound: There is none; the message names the tags that there are.
            VerificationError: It is not what its digest says.
            InvalidManifest: It is damaged, ambiguous, or of a kind that is not read.
            RegistryError: The registry cannot be reached, or refuses.
            Offline: The engine was told to be.
        """
        return await call(lambda: self.sync.manifest(name))

    async def delete(self, name: str) -> None:
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
        await call(lambda: self.sync.delete(name))

    async def referrers(self, name: str, artifact_type: str | None = None) -> list[Descriptor]:
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
        return await call(lambda: self.sync.referrers(name, artifact_type))

    async def copy(
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
        return await transfer(
            lambda tell: self.sync.copy(
                source, target, platforms=platforms, referrers=referrers, progress=tell
            ),
            progress,
        )
