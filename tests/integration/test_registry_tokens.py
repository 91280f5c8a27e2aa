"""Debian's registry behind a token service: real tokens, signed, with the scopes that the registry checks."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from support.archives import archive, file
from support.authority import Authority
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry
from support.session import temporary_directory
from support.token_service import TokenService, token_service

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

SERVICE, ISSUER = "debian", "tests"


def encoded(data: bytes) -> str:
    """Return `data` as JSON web tokens have it."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@attrs.frozen
class Mint:
    """Makes tokens in the form of the distribution project, signed by a certificate."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def of(cls, authority: Authority) -> Mint:
        """Return a mint whose certificate is of this authority."""
        certificate, key = authority.issue("mint")
        loaded = serialization.load_pem_private_key(key, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate(certificate), loaded)

    def __call__(self, user: str, scopes: tuple[str, ...]) -> str:
        """Return a token for these scopes."""
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        parts = [scope.partition(":")[::2] for scope in scopes]
        access = [
            {"type": kind, "name": rest.rpartition(":")[0], "actions": rest.rpartition(":")[2].split(",")}
            for kind, rest in parts
        ]
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": user, "jti": "1", "access": access}
        times = {"iat": now, "nbf": now - 60, "exp": now + 300}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, {**claims, **times}))
        r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{encoded(r.to_bytes(32) + s.to_bytes(32))}"


@pytest.fixture(scope="module")
def service() -> Iterator[TokenService]:
    """Return a token service that knows one user."""
    with token_service(TokenService(users={"ann": "secret"}, gives_identity=True)) as running:
        yield running


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest, service: TokenService) -> Iterator[DockerRegistry]:
    """Return a registry that takes the tokens of that service, and nothing else."""
    need(request.config, "peers", ("docker-registry",))
    authority = Authority("mints")
    service.mint = Mint.of(authority)
    with temporary_directory("g") as path:
        (path / "roots.pem").write_bytes(authority.pem)
        settings = {"realm": service.realm, "service": SERVICE, "issuer": ISSUER}
        with docker_registry(path, tokens={**settings, "rootcertbundle": f"{path}/roots.pem"}) as running:
            yield running


@pytest.fixture
def image(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """Return an image in the store of a user who is logged in nowhere."""
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "root.tar").write_bytes(archive(file(b"a", b"1" * 100_000)))
    return engine.images.from_tar(tmp_path / "root.tar")


def test_everything_goes_by_tokens(
    engine: Engine, image: Image, registry: DockerRegistry, service: TokenService
) -> None:
    """Push, mount, list, copy, pull and delete each get the token that the registry wants for it."""
    here = engine.registry(registry.host)
    with pytest.raises(cl.AuthenticationFailed):
        image.push(f"{registry.host}/team/a:1")
    assert here.login("ann", "secret").is_token
    assert image.push(f"{registry.host}/team/a:1").digest == image.digest
    image.tag(f"{registry.host}/team/a:1")
    before = len(registry.requests())
    image.push(f"{registry.host}/team/b:1")
    asked = registry.requests()[before:]
    assert not any(line.startswith(("PATCH", "PUT")) and "/blobs/uploads/" in line for line in asked)
    assert here.catalog() == ["team/a", "team/b"]
    assert here.copy("team/a:1", "other/c:2").digest == image.digest
    assert here.tags("other/c") == ["2"]
    image.remove(force=True)
    assert engine.images.pull(f"{registry.host}/other/c:2").digest == image.digest
    here.delete(f"other/c@{image.digest}")
    with pytest.raises(cl.RemoteNotFound):
        here.resolve("other/c:2")
    assert service.requests[-1].method == "POST"  # by the identity token, as all of them


def test_what_is_not_granted_is_refused(
    engine: Engine, image: Image, registry: DockerRegistry, service: TokenService
) -> None:
    """A token service that does not grant what is asked for leads to an error, not to a loop."""
    engine.registry(registry.host).login("ann", "secret", store=False)
    service.refuses = ("repository:forbidden:pull,push",)
    before = len(service.requests)
    with pytest.raises(cl.AuthenticationFailed, match="access denied"):
        image.push(f"{registry.host}/forbidden:1")
    assert len(service.requests) - before < 10
