"""Where credentials may go: token services, redirects, places of uploads, and what TLS has to do with it."""

from __future__ import annotations

import io
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from support.authority import Authority
from support.small_registry import Reply, Request, SmallRegistry, digest_of, listening, serve
from support.token_service import TokenService, guard, token_service

import containerlib as cl
from containerlib.oci.descriptor import Descriptor
from containerlib.registry import addresses, mirrors
from containerlib.registry.addresses import Place, place_of
from containerlib.registry.client import Registries
from containerlib.registry.credentials import Credential, Credentials
from containerlib.registry.source import Source
from containerlib.registry.upload import put_blob

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cl.Engine:
    """Return an engine of a user who has no credentials anywhere."""
    for name in ("DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return cl.Engine(tmp_path / "r", tmp_path / "n")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallRegistry]:
    """Return a registry that seems to be in the world, while the rest of loopback is this machine."""

    def place(address: str) -> Place:
        return "public" if address in {"127.0.0.2", "192.0.2.1"} else place_of(address)

    monkeypatch.setattr(addresses, "place_of", place)
    made = SmallRegistry()
    with listening(made.answer, address="127.0.0.2") as host:
        made.host = host
        yield made


@pytest.fixture
def service() -> Iterator[TokenService]:
    """Return a token service on this machine."""
    with token_service(TokenService(users={"ann": "hunter2"})) as running:
        yield running


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "loopback"),  # noqa: S104 - what connecting to it means
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("169.254.169.254", "link"),
        ("fe80::1%eth0", "link"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("93.184.216.34", "public"),
        ("2606:2800:220:1::1", "public"),
    ],
)
def test_addresses_are_told_apart(address: str, expected: str) -> None:
    """Every spelling of an address leads where the address leads."""
    assert place_of(address) == expected


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://127.0.0.1:{port}/token", "this machine"),
        ("http://localhost:{port}/token", "this machine"),
        ("http://[::ffff:127.0.0.1]:{port}/token", "this machine"),
        ("http://0.0.0.0:{port}/token", "this machine"),
        ("http://169.254.169.254/latest", "the link of this machine"),
        ("http://[fe80::1]/token", "the link of this machine"),
        ("http://[fd00::1]/token", "the network of this machine"),
        ("http://10.0.0.1/token", "the network of this machine"),
        ("http://ann@127.0.0.2/token", "web address"),
        ("ftp://127.0.0.2/token", "web address"),
        ("http://[::1/token", "web address"),
        ("http://127.0.0.2:0/token", "web address"),
        ("/token", "web address"),
    ],
)
def test_registry_cannot_have_credentials_sent_inside(
    engine: cl.Engine, far: SmallRegistry, service: TokenService, realm: str, reason: str
) -> None:
    """A registry in the world cannot name a token service on this machine, its link or its network."""
    guard(far, service, realm.format(port=service.realm.rpartition(":")[2].partition("/")[0]))
    with pytest.raises(cl.AuthenticationFailed, match=reason) as caught:
        engine.registry(far.host).login("ann", "hunter2", store=False)
    assert "hunter2" not in str(caught.value)
    assert service.requests == []


def test_name_that_changes_its_address_is_caught(
    engine: cl.Engine, far: SmallRegistry, service: TokenService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to the world when it is looked up and to this machine when it counts is refused."""
    real, asked = socket.getaddrinfo, []

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebinding.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        return real("192.0.2.1" if len(asked) == 1 else "127.0.0.1", port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    guard(far, service, service.realm.replace("127.0.0.1", "rebinding.test"))
    with pytest.raises(cl.AuthenticationFailed, match="this machine"):
        engine.registry(far.host).login("ann", "hunter2", store=False)
    assert (len(asked), service.requests) == (2, [])


def test_trusted_token_service_may_be_anywhere(
    engine: cl.Engine, far: SmallRegistry, service: TokenService
) -> None:
    """The list of the engine's configuration names exceptions, by host and port."""
    guard(far, service)
    host = service.realm.partition("//")[2].partition("/")[0]
    config = cl.EngineConfig(trusted_token_services=(host,))
    with cl.Engine(engine.root, engine.run_root, config) as trusting:
        assert trusting.registry(far.host).login("ann", "hunter2", store=False).username == "ann"
    config = cl.EngineConfig(trusted_token_services=(f"http://{host}",))
    wrong = cl.Engine(engine.root, engine.run_root, config)
    with pytest.raises(cl.InvalidInputError, match="host or host:port"):
        wrong.registry(far.host).tags("x")
    config = cl.EngineConfig(trusted_token_services=("127.0.0.1",))
    with cl.Engine(engine.root, engine.run_root, config) as other, pytest.raises(cl.AuthenticationFailed):
        other.registry(far.host).login("ann", "hunter2", store=False)


def test_registry_on_this_machine_may_name_a_service_there(engine: cl.Engine, service: TokenService) -> None:
    """Where the registry itself is, its token service may be as well, on another port."""
    with serve() as small:
        guard(small, service)
        assert engine.registry(small.host).login("ann", "hunter2", store=False).username == "ann"
        guard(small, service, "http://10.0.0.1/token")
        with pytest.raises(cl.AuthenticationFailed, match="the network of this machine"):
            engine.registry(small.host).login("ann", "hunter2", store=False)


@pytest.mark.parametrize("forms", [("GET",), ("POST",)])
def test_token_service_cannot_redirect_credentials(
    engine: cl.Engine, service: TokenService, forms: tuple[str, ...]
) -> None:
    """A token service that redirects to another host is refused: neither header nor body goes there."""
    seen: list[Request] = []

    def record(request: Request) -> Reply:
        seen.append(request)
        return Reply(200, {}, b'{"token": "x"}')

    with serve() as small, listening(record) as other:
        service.forms = forms
        service.intercept = lambda request: (
            Reply(307, {"Location": f"http://{other}/token"}) if request.method in forms else None
        )
        guard(small, service)
        with pytest.raises(cl.RegistryError, match="where secrets must not go"):
            engine.registry(small.host).login("ann", "hunter2", store=False)
    assert seen == []


def test_redirect_of_a_blob_carries_no_credentials(engine: cl.Engine, service: TokenService) -> None:
    """A blob that is on another host is fetched there without what belongs to the registry."""
    seen: list[Request] = []
    document = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()

    def record(request: Request) -> Reply:
        seen.append(request)
        return Reply(200, {"Content-Type": MANIFEST}, document)

    with serve() as small, listening(record) as other:
        guard(small, service)
        small.intercept = lambda request: (
            Reply(307, {"Location": f"http://{other}/elsewhere"})
            if service.admits(request, "") and "manifests" in request.path
            else None
        )
        here = engine.registry(small.host)
        here.login("ann", "hunter2", store=False)
        assert here.resolve(f"x@{digest_of(document)}").digest == digest_of(document)
    assert seen
    assert not any({"authorization", "cookie"} & set(request.headers) for request in seen)


def test_redirect_cannot_lead_inside(engine: cl.Engine, far: SmallRegistry) -> None:
    """A registry in the world cannot have this machine or its link asked for something."""
    seen: list[Request] = []

    def record(request: Request) -> Reply:
        seen.append(request)
        return Reply()

    with listening(record) as inside:
        for target in (inside, "169.254.169.254"):
            far.intercept = lambda _request, target=target: Reply(307, {"Location": f"http://{target}/"})
            with pytest.raises(cl.RegistryError, match="leads to"):
                engine.registry(far.host).tags("x")
    assert seen == []


@pytest.mark.parametrize("is_challenged", [False, True])
def test_place_of_an_upload_elsewhere_gets_no_credentials(*, is_challenged: bool) -> None:
    """An upload that the registry sends to another host goes there without credentials, or not at all."""
    seen: list[Request] = []
    data = b"content"
    blob = Descriptor.of(data, "application/octet-stream")

    def record(request: Request) -> Reply:
        seen.append(request)
        if is_challenged:
            return Reply(401, {"WWW-Authenticate": 'Basic realm="give it to me"'})
        return Reply(201)

    with serve() as small, listening(record) as other:
        small.challenge = 'Basic realm="small"'
        small.admits = lambda request, _scope: "authorization" in request.headers
        small.intercept = lambda request: (
            Reply(202, {"Location": f"http://{other}/upload"})
            if request.method == "POST" and "authorization" in request.headers
            else None
        )
        credentials = Credentials({}, "/nonexistent")
        credentials.login(small.host, Credential("ann", "hunter2"), persist=False)
        registries = Registries(credentials)
        repository = registries.repository(Source(small.host, "x", allows_http=True), "pull,push")

        def upload() -> None:
            put_blob(repository, blob, lambda: io.BytesIO(data))

        if is_challenged:
            with pytest.raises(cl.AuthenticationFailed):
                upload()
        else:
            upload()
        registries.close()
    assert [request.method for request in seen] == ["PUT"]
    assert "authorization" not in seen[0].headers


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1:9"])
def test_credentials_of_one_registry_are_for_no_other(engine: cl.Engine, host: str) -> None:
    """A registry is not shown what belongs to another one, nor to Docker Hub."""
    auth = {"auths": {host: {"username": "ann", "password": "hunter2"}, "docker.io": {"auth": "YTpi"}}}
    with serve() as small, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        small.challenge = 'Basic realm="small"'
        small.admits = lambda request, _scope: "authorization" in request.headers
        with pytest.raises(cl.AuthenticationFailed, match="none are known"):
            engine.registry(small.host).tags("x")
        assert not any("authorization" in request.headers for request in small.requests)


def test_certificate_that_is_not_valid_never_leads_to_plain_text(
    engine: cl.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registry, token service and target of a redirect each need a valid certificate; http is not tried."""
    good, bad = Authority("good"), Authority("bad")
    (tmp_path / "good.pem").write_bytes(good.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "good.pem"))
    # As registries elsewhere do.
    monkeypatch.setattr(mirrors, "_is_loopback", lambda _host: False)
    with serve(tls=bad.context(tmp_path)) as small:
        with pytest.raises(cl.RegistryUnavailable, match="TLS failed"):
            engine.registry(small.host).tags("x")
        assert small.requests == []
    with serve(tls=good.context(tmp_path)) as small:
        small.manifests["x", "1"] = (MANIFEST, b"{}")
        assert engine.registry(small.host).tags("x") == ["1"]
        with token_service(tls=bad.context(tmp_path)) as unsafe:
            guard(small, unsafe)
            with pytest.raises(cl.RegistryUnavailable, match="TLS failed"):
                engine.registry(small.host).tags("x")
            assert unsafe.requests == []
        with token_service() as plain:
            guard(small, plain)
            with pytest.raises(cl.AuthenticationFailed, match="plain text"):
                engine.registry(small.host).tags("x")
            assert plain.requests == []
        with serve(tls=bad.context(tmp_path)) as other:
            small.admits = lambda _request, _scope: True
            small.intercept = lambda _request: Reply(307, {"Location": f"https://{other.host}/v2/"})
            with pytest.raises(cl.RegistryUnavailable, match="TLS failed"):
                engine.registry(small.host).tags("x")
            small.intercept = lambda _request: Reply(307, {"Location": f"http://{other.host}/v2/"})
            with pytest.raises(cl.RegistryError, match="from TLS to plain text"):
                engine.registry(small.host).tags("x")
            assert other.requests == []
