from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from support.authority import Authority

from containerlib.errors import InvalidInputError
from containerlib.registry.certificates import certificate_directories, tls_context
from containerlib.registry.config_file import MAX_CONFIG_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server:
    """A TLS server on loopback that answers every connection with the subject of the client's certificate."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def host(self) -> str:
        """Name and port, as a registry is called."""
        return f"localhost:{self.port}"

    def _serve(self) -> None:
        while True:
            connection, _address = self._socket.accept()
            with connection:
                if connection.recv(1, socket.MSG_PEEK) == b"q":
                    return
                with (
                    contextlib.suppress(OSError),
                    self._context.wrap_socket(connection, server_side=True) as tls,
                ):
                    tls.sendall(repr((tls.getpeercert() or {}).get("subject")).encode())

    def close(self) -> None:
        """End the server."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"q")
        self._thread.join()
        self._socket.close()

    def ask(self, context: ssl.SSLContext, *, name: str = "localhost") -> str:
        """Connect with a client's context and return the answer."""
        with (
            socket.create_connection(("127.0.0.1", self.port)) as connection,
            context.wrap_socket(connection, server_hostname=name) as tls,
        ):
            return tls.recv(4096).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Give an authority that no host trusts."""
    return Authority("test authority")


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[Server]:
    """Give a server whose certificate the authority signed, and that asks for a client certificate."""
    certificate, key = authority.issue("localhost")
    (tmp_path / "server.pem").write_bytes(certificate + key)
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.load_verify_locations(tmp_path / "authority.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    running = Server(context)
    yield running
    running.close()


def put(directory: Path, host: str, **files: bytes) -> None:
    """Write files of a registry into a certs.d directory; ``_`` stands for the dot."""
    target = directory / host
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (target / name.replace("_", ".")).write_bytes(data)


def test_directories_of_all_tools_count() -> None:
    """The directories of Docker and of the containers tools are looked at, the user's own last."""
    assert certificate_directories("/h") == (
        "/etc/docker/certs.d",
        "/etc/containers/certs.d",
        "/h/.config/containers/certs.d",
    )


def test_unknown_authority_is_refused(server: Server, tmp_path: Path) -> None:
    """Without any configuration a self-made authority is not trusted."""
    context = tls_context(server.host, verify=True, environ={}, directories=[str(tmp_path)])
    with pytest.raises(ssl.SSLCertVerificationError):
        server.ask(context)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_authority_of_the_registry_is_trusted(server: Server, authority: Authority, tmp_path: Path) -> None:
    """A ``*.crt`` file in the directory of host and port is trusted for this one only."""
    put(tmp_path, server.host, any_crt="é\n".encode() + authority.pem)
    directories = [str(tmp_path)]
    server.ask(tls_context(server.host, verify=True, environ={}, directories=directories))
    for other in ("localhost", "localhost:1", "other.test"):
        with pytest.raises(ssl.SSLCertVerificationError):
            server.ask(tls_context(other, verify=True, environ={}, directories=directories))


def test_name_of_the_host_is_checked(server: Server, authority: Authority, tmp_path: Path) -> None:
    """A trusted certificate of another host is refused, unless nothing is verified."""
    put(tmp_path, server.host, ca_crt=authority.pem)
    context = tls_context(server.host, verify=True, environ={}, directories=[str(tmp_path)])
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        server.ask(context, name="other.test")
    server.ask(context, name="127.0.0.1")
    free = tls_context(server.host, verify=False, environ={}, directories=[str(tmp_path)])
    server.ask(free, name="other.test")


def test_intermediate_authority_is_enough(tmp_path: Path) -> None:
    """An intermediate authority or the certificate of the host itself can be trusted directly."""
    middle = Authority("middle", parent=Authority("root"))
    certificate, key = middle.issue("localhost")
    (tmp_path / "server.pem").write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server = Server(context)
    try:
        for trusted in (middle.pem, certificate):
            put(tmp_path, server.host, ca_crt=trusted)
            server.ask(tls_context(server.host, verify=True, environ={}, directories=[str(tmp_path)]))
    finally:
        server.close()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundles_of_the_environment(
    server: Server, authority: Authority, tmp_path: Path, variable: str
) -> None:
    """A bundle that the environment names is trusted; one that is missing or damaged is an error."""
    path = tmp_path / "bundle.pem"
    path.write_bytes(authority.pem)
    server.ask(tls_context(server.host, verify=True, environ={variable: str(path)}, directories=[]))
    path.write_text("nothing")
    with pytest.raises(InvalidInputError, match=r"bundle\.pem: not certificates in PEM form"):
        tls_context(server.host, verify=True, environ={variable: str(path)}, directories=[])
    path.unlink()
    with pytest.raises(InvalidInputError, match=f"{variable} names .*bundle"):
        tls_context(server.host, verify=True, environ={variable: str(path)}, directories=[])
    tls_context(server.host, verify=False, environ={variable: str(path)}, directories=[])


@pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_hashed_directories_of_the_environment(
    server: Server, authority: Authority, tmp_path: Path, variable: str
) -> None:
    """A directory of hashed certificates is trusted."""
    path = tmp_path / "hashed"
    path.mkdir()
    (path / "ca.pem").write_bytes(authority.pem)
    subprocess.run(["openssl", "rehash", str(path)], check=True)
    server.ask(tls_context(server.host, verify=True, environ={variable: str(path)}, directories=[]))


def test_first_variable_wins(server: Server, authority: Authority, tmp_path: Path) -> None:
    """SSL_CERT_FILE rules out the bundles of other programs, REQUESTS_CA_BUNDLE that of curl."""
    good, other = tmp_path / "good.pem", tmp_path / "other.pem"
    good.write_bytes(authority.pem)
    other.write_bytes(Authority("other").pem)
    order = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for first, second in itertools.pairwise(order):
        environ = {first: str(good), second: str(other)}
        server.ask(tls_context(server.host, verify=True, environ=environ, directories=[]))
        environ = {first: str(other), second: str(good)}
        with pytest.raises(ssl.SSLCertVerificationError):
            server.ask(tls_context(server.host, verify=True, environ=environ, directories=[]))


@pytest.mark.parametrize("verify", [True, False])
def test_client_certificate_is_shown(
    server: Server, authority: Authority, tmp_path: Path, *, verify: bool
) -> None:
    """The client certificate of the most specific directory is shown, whether or not the host is verified."""
    system, user = tmp_path / "system", tmp_path / "user"
    directories = [str(system), str(user)]

    def subject() -> str:
        return server.ask(tls_context(server.host, verify=verify, environ={}, directories=directories))

    put(system, server.host, ca_crt=authority.pem)
    assert subject() == "None"
    for directory, name in ((system, "from system"), (user, "from user")):
        certificate, key = authority.issue(name)
        put(directory, server.host, client_cert=certificate, client_key=key)
        assert name in subject()


def test_hub_has_two_directories(authority: Authority, tmp_path: Path) -> None:
    """The directory of Docker Hub may be called as it is known or as it is reached."""
    certificate, _key = authority.issue("me")
    for name in ("docker.io", "registry-1.docker.io"):
        put(tmp_path / name, name, me_cert=certificate)
        with pytest.raises(InvalidInputError, match=r"me\.cert: there is no me\.key"):
            tls_context("registry-1.docker.io", verify=False, environ={}, directories=[str(tmp_path / name)])


def test_client_files_must_be_complete(authority: Authority, tmp_path: Path) -> None:
    """Half a pair, two pairs, a pair that does not fit and an encrypted key are refused by name."""
    certificate, key = authority.issue("me")
    other_certificate, other_key = authority.issue("other", password=b"secret")
    cases = [
        ({"me_cert": certificate}, r"me\.cert: there is no me\.key"),
        ({"me_key": key}, r"me\.key: there is no me\.cert"),
        ({"a_cert": certificate, "a_key": key, "b_cert": certificate, "b_key": key}, "2 client certificates"),
        ({"me_cert": other_certificate, "me_key": key}, r"me\.cert and .*me\.key: do not fit together"),
        ({"me_cert": b"x", "me_key": key}, "not in PEM form"),
        ({"me_cert": other_certificate, "me_key": other_key}, r"me\.key: is encrypted"),
        ({"me_cert": bytes(MAX_CONFIG_BYTES + 1), "me_key": key}, "over the limit"),
    ]
    for number, (files, reason) in enumerate(cases):
        put(tmp_path / str(number), "r.test", **files)
        with pytest.raises(InvalidInputError, match=reason):
            tls_context("r.test", verify=False, environ={}, directories=[str(tmp_path / str(number))])


def test_damaged_authorities_are_named(tmp_path: Path) -> None:
    """A file of authorities that is none, or leads nowhere, is refused by name."""
    put(tmp_path, "r.test", ca_crt=b"x")
    with pytest.raises(InvalidInputError, match=r"ca\.crt: not certificates in PEM form"):
        tls_context("r.test", verify=True, environ={}, directories=[str(tmp_path)])
    (tmp_path / "r.test/ca.crt").unlink()
    (tmp_path / "r.test/ca.crt").symlink_to("nowhere")
    with pytest.raises(InvalidInputError, match=r"ca\.crt: no such file"):
        tls_context("r.test", verify=True, environ={}, directories=[str(tmp_path)])


@pytest.mark.parametrize("host", ["", "..", ".", "a/b", "../x", "https://r.test", "a b", "r.test\n"])
def test_hosts_are_checked(host: str, tmp_path: Path) -> None:
    """A host that could lead out of the directory, or is none, is refused."""
    with pytest.raises(InvalidInputError, match="not of the form host"):
        tls_context(host, verify=True, environ={}, directories=[str(tmp_path)])


def test_home_holds_a_directory(server: Server, authority: Authority, tmp_path: Path) -> None:
    """The user's own certs.d is below the home directory that is given or that the environment names."""
    put(tmp_path / ".config/containers/certs.d", server.host, ca_crt=authority.pem)
    server.ask(tls_context(server.host, verify=True, environ={}, home=str(tmp_path)))
    server.ask(tls_context(server.host, verify=True, environ={"HOME": str(tmp_path)}))
