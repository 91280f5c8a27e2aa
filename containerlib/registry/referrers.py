"""What refers to a manifest: signatures, attestations, lists of its parts.

Registries that cannot list these leave it to their clients to keep an index under a tag made of the digest.

Source: OCI distribution-spec 1.1, "Listing Referrers", "Referrers Tag Schema".
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from containerlib.errors import InvalidManifest, RegistryError, RemoteNotFound
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.manifest import Index, parse_manifest
from containerlib.registry.listing import pages
from containerlib.registry.upload import put_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.oci.digest import Digest
    from containerlib.registry.client import RepositoryClient

__all__ = ["list_referrers", "publish_referrers", "referrers_tag"]

_MAX_REFERRERS = 10_000
_TRUNCATED = 64


def referrers_tag(digest: Digest) -> str:
    """Return the tag under which clients keep the referrers of `digest`."""
    return f"{digest.algorithm}-{digest.hex[:_TRUNCATED]}"


def list_referrers(
    repository: RepositoryClient, digest: Digest, artifact_type: str | None = None
) -> list[Descriptor]:
    """Return what refers to a manifest, which need not exist itself.

    Args:
        repository: Where it is.
        digest: Of the manifest.
        artifact_type: Only what is of this type.

    Raises:
        InvalidManifest: The list is damaged.
        RegistryError: It is too long; see `Transport.request`.
    """
    query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type is not None else ""
    what = f"referrers of {repository.source.name}@{digest}"
    found: list[Descriptor] = []
    try:
        for _headers, document in pages(repository, f"referrers/{digest}{query}", what):
            found += _entries(document, what)
            if len(found) > _MAX_REFERRERS:
                raise RegistryError(f"{what}: more than {_MAX_REFERRERS}")
    except RemoteNotFound:
        found = _kept_by_clients(repository, digest)
    # Not every registry filters, and a tag never does.
    return [entry for entry in found if artifact_type in {None, entry.artifact_type}]


def publish_referrers(repository: RepositoryClient, subject: Digest, entries: Sequence[Descriptor]) -> None:
    """Let `entries`, which are there already, be found as what refers to `subject`.

    Nothing is to be done where the registry sees to it itself. Elsewhere the tag of `subject` is changed; two
    programs that do so at the same time may lose entries, as the specification says.

    Raises:
        RegistryError: See `Transport.request`.
    """
    if _has_api(repository, subject):
        return
    found = {entry.digest: entry for entry in (*_kept_by_clients(repository, subject), *entries)}
    index = Index.build(list(found.values()))
    put_manifest(repository, index.raw, index.media_type, referrers_tag(subject))


def _has_api(repository: RepositoryClient, digest: Digest) -> bool:
    what = f"referrers of {repository.source.name}@{digest}"
    try:
        return next(pages(repository, f"referrers/{digest}", what), None) is not None
    except RemoteNotFound:
        return False


def _kept_by_clients(repository: RepositoryClient, digest: Digest) -> list[Descriptor]:
    try:
        descriptor, raw = repository.fetch_manifest(referrers_tag(digest))
    except RemoteNotFound:
        return []
    document = parse_manifest(raw, descriptor.media_type)
    return list(document.manifests) if isinstance(document, Index) else []


def _entries(document: dict[str, object], what: str) -> list[Descriptor]:
    entries = document.get("manifests")
    if document.get("mediaType", media_type.OCI_INDEX) != media_type.OCI_INDEX or not isinstance(
        entries, list
    ):
        raise InvalidManifest(f"{what}: the registry's answer is no index")
    if not all(isinstance(entry, dict) for entry in entries):
        raise InvalidManifest(f"{what}: an entry is no descriptor")
    return [Descriptor.from_json(entry) for entry in entries]
