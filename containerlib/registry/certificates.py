"""Which certificates are trusted for a registry, and which one we show to it.

The roots of the host, or those that the environment names, and what is in the ``certs.d`` directories of
Docker and of the containers tools. Makes `ssl.SSLContext` objects; opens no connection.

Source: containers-certs.d(5), and Docker's "Verify repository client with certificates".
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, NoReturn

from containerlib.errors import InvalidInputError
from containerlib.registry.config_file import home_directory, read_config_file
from containerlib.registry.credential import HUB, normal_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["certificate_directories", "tls_context"]

_SYSTEM_DIRECTORIES = ("/etc/docker/certs.d", "/etc/containers/certs.d")

# Where distributions keep their roots, for an interpreter that was built elsewhere and does not know.
_KNOWN_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def certificate_directories(home: str) -> tuple[str, ...]:
    """Return the directories that have a subdirectory for each registry, least specific first."""
    return (*_SYSTEM_DIRECTORIES, os.path.join(home, ".config/containers/certs.d"))


def tls_context(
    host: str,
    *,
    verify: bool,
    environ: Mapping[str, str] | None = None,
    home: str | None = None,
    directories: Sequence[str] | None = None,
) -> ssl.SSLContext:
    """Return the context for connections to one registry.

    Args:
        host: ``name`` or ``name:port``, as the subdirectory is called.
        verify: Whether the certificate must be valid and for this host.
        environ: Environment to go by; None means that of this process.
        home: Home directory; None means that of the environment or the user.
        directories: Instead of `certificate_directories`.

    Raises:
        InvalidInputError: A certificate, a key or a bundle is missing, damaged or cannot be read.

    Cost: reads the roots of the host, some 10 ms. Keep the context.
    """
    environ = os.environ if environ is None else environ
    if directories is None:
        directories = certificate_directories(home or home_directory(environ))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    found = [path for directory in directories for path in _subdirectories(directory, host)]
    if verify:
        # A certificate in certs.d may be that of an intermediate authority, or of the host itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _load_roots(context, environ)
        for directory in found:
            for name in _list(directory, ".crt"):
                _load_authorities(context, os.path.join(directory, name))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _load_client(context, found)
    return context


def _subdirectories(directory: str, host: str) -> list[str]:
    key = normal_key(host)
    if key is None or "/" in host or host in {".", ".."}:
        raise InvalidInputError(f"registry {host[:200]!r} is not of the form host or host:port")
    names = dict.fromkeys([*([HUB] if key == HUB else []), host])
    return [os.path.join(directory, name) for name in names]


def _load_roots(context: ssl.SSLContext, environ: Mapping[str, str]) -> None:
    """Trust what the environment names, otherwise what the host trusts."""
    file, directory = environ.get("SSL_CERT_FILE", ""), environ.get("SSL_CERT_DIR", "")
    if not file and not directory:
        for name in _BUNDLE_VARIABLES:
            bundle = environ.get(name, "")
            if bundle:
                _load_bundle(context, name, bundle)
                return
    # As in OpenSSL, each of the two stands for one of the two defaults.
    defaults = ssl.get_default_verify_paths()
    if file:
        _load_bundle(context, "SSL_CERT_FILE", file)
    else:
        known = [path for path in (defaults.openssl_cafile, *_KNOWN_BUNDLES) if os.path.isfile(path)]
        if known:
            _load_authorities(context, known[0])
    if directory:
        for part in filter(None, directory.split(os.pathsep)):
            _load_bundle(context, "SSL_CERT_DIR", part)
    elif os.path.isdir(defaults.openssl_capath):
        context.load_verify_locations(capath=defaults.openssl_capath)


def _load_bundle(context: ssl.SSLContext, variable: str, path: str) -> None:
    if os.path.isdir(path):
        context.load_verify_locations(capath=path)
    elif os.path.exists(path):
        _load_authorities(context, path)
    else:
        raise InvalidInputError(f"{variable} names {path!r}, which does not exist")


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    data = read_config_file(path)
    if data is None:
        raise InvalidInputError(f"{path}: no such file")
    try:
        # Between the certificates there may be comments in any language.
        context.load_verify_locations(cadata=data.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise InvalidInputError(f"{path}: not certificates in PEM form") from None


def _load_client(context: ssl.SSLContext, directories: Sequence[str]) -> None:
    """Show the certificate of the most specific directory that has one."""
    for directory in reversed(directories):
        stems = {name.removesuffix(".cert") for name in _list(directory, ".cert")}
        keys = {name.removesuffix(".key") for name in _list(directory, ".key")}
        alone = sorted(stems ^ keys)
        if alone:
            have, lack = (".cert", ".key") if alone[0] in stems else (".key", ".cert")
            raise InvalidInputError(f"{directory}/{alone[0]}{have}: there is no {alone[0]}{lack} beside it")
        if len(stems) > 1:
            raise InvalidInputError(f"{directory}: has {len(stems)} client certificates; keep one")
        for stem in stems:
            _load_pair(context, os.path.join(directory, stem))
            return


def _load_pair(context: ssl.SSLContext, stem: str) -> None:
    for path in (f"{stem}.cert", f"{stem}.key"):
        read_config_file(path)  # refuses what is not a file of a sane size, by name

    def refuse_password() -> NoReturn:
        # Otherwise OpenSSL would ask for it on the terminal.
        raise InvalidInputError(f"{stem}.key: is encrypted; a key must be usable without a password")

    try:
        context.load_cert_chain(f"{stem}.cert", f"{stem}.key", password=refuse_password)
    except OSError as error:
        reason = (
            "do not fit together, or are not in PEM form" if isinstance(error, ssl.SSLError) else str(error)
        )
        raise InvalidInputError(f"{stem}.cert and {stem}.key: {reason}") from None


def _list(directory: str, suffix: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(suffix) and name != suffix)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        # A directory that only another user may read is not meant for this one.
        return []
