"""A certificate authority for servers of tests."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Authority"]


class Authority:
    """A certificate authority that signs certificates for tests."""

    def __init__(self, name: str, *, parent: Authority | None = None) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = parent or self
        self.certificate = self._build(self.name, self.key, signer, is_authority=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *, password: bytes | None = None) -> tuple[bytes, bytes]:
        """Return certificate and key for a host or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._build(subject, key, self, is_authority=False)
        protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            protection = serialization.BestAvailableEncryption(password)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
        return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(*form)

    @staticmethod
    def _build(
        subject: x509.Name, key: ec.EllipticCurvePrivateKey, signer: Authority, *, is_authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        addresses = [ipaddress.ip_address(address) for address in ("127.0.0.1", "127.0.0.2")]
        names = [x509.DNSName("localhost"), *map(x509.IPAddress, addresses)]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(signer.key, hashes.SHA256())

    def context(self, directory: Path) -> ssl.SSLContext:
        """Return the context of a server with a certificate of this authority."""
        certificate, key = self.issue("server")
        (directory / "server.cert").write_bytes(certificate)
        (directory / "server.key").write_bytes(key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.cert", directory / "server.key")
        return context
