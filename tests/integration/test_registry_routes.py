"""Ways to registries: redirects, tokens, TLS, proxies, old protocols, and the places an upload is sent to."""

from __future__ import annotations

import base64
import json
import socket
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.authority import Authority
from support.fault_registry import FaultRegistry, Reply, Seen, digest_of, refusal
from support.faulty_pull import hasty, refuse, visible
from support.forwarding_proxy import forwarding

import containerlib as cl
from containerlib.registry import mirrors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.fault_registry import Fault

    from containerlib import Engine

pytestmark = [pytest.mark.root]

LAYER_BYTES = archive(file(b"etc/motd", b"hello" * 40_000))
DIGEST = digest_of(LAYER_BYTES)
BLOB = f"GET /v2/x/blobs/{DIGEST}"
TAG = "GET /v2/x/manifests/1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home directory of its own, no proxies, and nothing else that holds credentials."""
    for name in ("DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with one image, honest until it is changed."""
    with FaultRegistry() as running:
        running.add_image([LAYER_BYTES], "1")
        yield running


@pytest.fixture
def elsewhere() -> Iterator[FaultRegistry]:
    """Return another host that has the layer."""
    with FaultRegistry() as running:
        running.add_image([LAYER_BYTES])
        yield running


def redirect(target: str, status: int = 307) -> Fault:
    """Return a fault that sends the client elsewhere."""
    return lambda _, __: Reply(status=status, headers={"Location": target})


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_host(
    engine: Engine, registry: FaultRegistry, elsewhere: FaultRegistry, status: int
) -> None:
    """A layer that lies on another host is fetched there, and the token stays at home."""
    registry.tokens = set()
    registry.fault(BLOB, redirect(f"{elsewhere.url}/v2/x/blobs/{DIGEST}?signature=abc", status))
    engine.images.pull(registry.name)
    assert registry.asked(TAG)[-1].headers["authorization"].startswith("Bearer ")
    (there,) = elsewhere.asked("blobs")
    assert "authorization" not in there.headers
    assert there.path.endswith("?signature=abc")


@pytest.mark.parametrize("target", ["/v2/x/blobs/{}?again", "./{}?again", "?again", "../blobs/{}?again"])
def test_redirect_within_the_registry(engine: Engine, registry: FaultRegistry, target: str) -> None:
    """A place that is relative counts from where it was said, and the token goes along."""
    registry.tokens = set()
    registry.fault(f"{BLOB}$", redirect(target.format(DIGEST)))
    engine.images.pull(registry.name)
    assert registry.asked(r"\?again")[-1].headers["authorization"].startswith("Bearer ")


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("file:///etc/passwd", "not followed"),
        ("ftp://h.example/x", "not followed"),
        ("gopher:x", "not followed"),
        ("http://user:secret@h.example/", "not followed"),
        ("http://[bad/x", "not followed"),
        ("http://h.example:99999999/", "not followed"),
        ("http://169.254.169.254/latest/meta-data", "link of this machine"),
        ("//169.254.169.254/", "link of this machine"),
    ],
)
def test_redirect_to_where_nobody_goes(
    engine: Engine, registry: FaultRegistry, target: str, match: str
) -> None:
    """Files, other protocols, passwords, nonsense and the addresses of clouds are no places to be sent to."""
    registry.fault(BLOB, redirect(target))
    error = refuse(hasty(engine), registry, cl.RegistryError, match)
    assert "secret" not in str(error)


def test_redirects_without_end(engine: Engine, registry: FaultRegistry) -> None:
    """A redirect to itself and a long chain end after ten."""
    registry.fault(BLOB, redirect(f"/v2/x/blobs/{DIGEST}"))
    refuse(engine, registry, cl.RegistryError, "more than 10 redirects")
    assert len(registry.asked(BLOB)) == 12  # with the honest pull
    steps = iter(range(100))
    registry.fault(
        TAG,
        lambda _, __: Reply(
            status=302, headers={"Location": f"{registry.url}/v2/x/manifests/1?{next(steps)}"}
        ),
    )
    with pytest.raises(cl.RegistryError, match="more than 10 redirects"):
        engine.images.pull(registry.name)


def test_ten_redirects_are_followed(engine: Engine, registry: FaultRegistry) -> None:
    """Ten redirects are not too many."""
    steps = iter(range(100))
    registry.fault(BLOB, lambda _, __: Reply(status=302, headers={"Location": f"?{next(steps)}"}), times=10)
    engine.images.pull(registry.name)


def test_redirected_layer_is_checked_all_the_same(
    engine: Engine, registry: FaultRegistry, elsewhere: FaultRegistry
) -> None:
    """What another host sends is no more trusted than what the registry sends."""
    elsewhere.fault("blobs", lambda _, reply: attrs.evolve(reply, body=bytes(len(reply.body))))
    registry.fault(BLOB, redirect(f"{elsewhere.url}/v2/x/blobs/{DIGEST}"))
    refuse(engine, registry, cl.DigestMismatch, "expected")


def test_redirected_layer_is_gone_on_with(
    engine: Engine, registry: FaultRegistry, elsewhere: FaultRegistry
) -> None:
    """A download that breaks on the other host goes on through the registry, which may name another place."""
    elsewhere.fault("blobs", lambda _, reply: attrs.evolve(reply, cut=100_000), times=1)
    registry.fault(BLOB, redirect(f"{elsewhere.url}/v2/x/blobs/{DIGEST}"))
    engine.images.pull(registry.name)
    assert [each.headers.get("range") for each in elsewhere.asked("blobs")] == [None, "bytes=100000-"]


# Mirrors


@pytest.mark.parametrize("status", [404, 429, 503])
def test_mirror_that_does_not_help(
    engine: Engine,
    registry: FaultRegistry,
    elsewhere: FaultRegistry,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """A mirror that lacks the image or is out of order is soon given up, and the registry itself asked."""
    conf = home / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{elsewhere.host}"\n'
    conf.write_text(f'[[registry]]\nlocation = "{registry.host}"\n{mirror}', encoding="ascii")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    elsewhere.instead("manifests", refusal(status))
    assert hasty(engine, attempts=5).images.pull(registry.name).references == (registry.name,)
    assert len(elsewhere.asked("manifests")) == (1 if status == 404 else 2)


def test_mirror_that_lies(
    engine: Engine,
    registry: FaultRegistry,
    elsewhere: FaultRegistry,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a mirror sends is checked like anything else, and is no reason to go on as if nothing had been."""
    conf = home / "registries.conf"
    mirror = f'[[registry.mirror]]\nlocation = "{elsewhere.host}"\n'
    conf.write_text(f'[[registry]]\nlocation = "{registry.host}"\n{mirror}', encoding="ascii")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    elsewhere.manifests |= registry.manifests
    elsewhere.fault(BLOB, lambda _, reply: attrs.evolve(reply, body=bytes(len(reply.body))))
    refuse(engine, registry, cl.DigestMismatch, "expected", heals=False)


# Tokens


def token(document: object, **fields: object) -> Fault:
    """Return a fault of the token service: another answer, or other fields beside the token."""

    def make(_request: Seen, reply: Reply) -> Reply:
        if document is None:
            return attrs.evolve(reply, body=json.dumps({**json.loads(reply.body), **fields}).encode())
        return attrs.evolve(
            reply, body=document if isinstance(document, bytes) else json.dumps(document).encode()
        )

    return make


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_in": 0},
        {"expires_in": -1},
        {"expires_in": 10**12},
        {"expires_in": "soon"},
        {"issued_at": "yesterday"},
        {"access_token": "another"},
        {"refresh_token": 7},
    ],
)
def test_token_with_odd_company(engine: Engine, registry: FaultRegistry, fields: dict[str, object]) -> None:
    """A token that says nothing sensible of its life, or comes twice, is used all the same."""
    registry.tokens = set()
    registry.fault("/token", token(None, **fields))
    engine.images.pull(registry.name)
    assert registry.issued < 5


def test_token_under_its_other_name(engine: Engine, registry: FaultRegistry) -> None:
    """A token that is only called ``access_token`` is one."""
    registry.tokens = {"other"}
    registry.fault("/token", token({"access_token": "other"}))
    engine.images.pull(registry.name)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"<html>", "no token"),
        (b"", "no token"),
        (b"[]", "no token"),
        ({}, "holds no token"),
        ({"token": ""}, "holds no token"),
        ({"token": 7}, "holds no token"),
        ({"token": "a b"}, "holds no token"),
        ({"token": "a\r\nX-Evil: 1"}, "holds no token"),
        ({"token": "é"}, "holds no token"),
        ({"token": "a", "padding": "x" * (2 << 20)}, "no token"),
        (b'{"token": "a", "token": "b"}', "no token"),
    ],
)
def test_answer_that_is_no_token(engine: Engine, registry: FaultRegistry, answer: object, match: str) -> None:
    """What a token service says is a token, or an error that says so."""
    registry.tokens = set()
    registry.fault("/token", token(answer))
    refuse(hasty(engine), registry, cl.AuthenticationFailed, match)


def test_token_that_runs_out_in_the_middle(engine: Engine, registry: FaultRegistry) -> None:
    """When the token runs out between two requests, a new one is got, once."""
    registry.tokens = set()

    def expire(_request: Seen, reply: Reply) -> Reply:
        assert registry.tokens is not None
        registry.tokens.clear()
        return reply

    registry.fault(TAG, lambda _, reply: reply, times=1)
    registry.fault(TAG, expire, times=1)
    engine.images.pull(registry.name)
    assert 2 <= registry.issued <= 3


def test_token_that_is_never_enough(engine: Engine, registry: FaultRegistry) -> None:
    """A token without the scope that is needed is refused in the end, and not asked for again and again."""
    registry.tokens = set()
    challenge = f'Bearer realm="{registry.url}/token",error="insufficient_scope"'
    registry.fault(BLOB, lambda _, __: refusal(401, "DENIED", "not yours", www_authenticate=challenge))
    refuse(hasty(engine), registry, cl.AuthenticationFailed, "not yours.*not accepted; log in again")
    assert registry.issued < 6


# Protocols


def test_old_protocol(engine: Engine) -> None:
    """A registry that speaks HTTP/1.0, and closes after each answer, is served like any other."""
    with FaultRegistry(protocol="HTTP/1.0") as registry:
        registry.add_image([LAYER_BYTES], "1")
        registry.fault(BLOB, lambda _, reply: attrs.evolve(reply, framing="close"))
        assert engine.images.pull(registry.name).call is not None
        assert len(registry.asked("GET")) == 3


def test_only_the_new_addresses(engine: Engine) -> None:
    """A registry that has an IPv6 address and no other is reached by it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")
    with FaultRegistry(address="::1") as registry:
        registry.add_image([LAYER_BYTES], "1")
        assert engine.images.pull(registry.name).references == (registry.name,)
        registry.fault(BLOB, redirect(f"{registry.url}/v2/x/blobs/{DIGEST}?there"), times=1)
        engine.images.remove(registry.name)
        engine.images.pull(registry.name)


@pytest.fixture
def _far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine be as far away as any other: what it says needs a certificate."""
    monkeypatch.setattr(mirrors, "_is_loopback", lambda _host: False)


@pytest.fixture
def authority() -> Authority:
    """Return an authority that nobody trusts yet."""
    return Authority("test authority")


def trust(home: Path, authority: Authority, host: str) -> None:
    """Let the authority be trusted for this host."""
    directory = home / ".config/containers/certs.d" / host
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(authority.pem)


def test_tls_of_this_machine_needs_no_authority(engine: Engine, authority: Authority, home: Path) -> None:
    """A registry of this machine may have any certificate, as with Docker, and nobody is warned about it."""
    with FaultRegistry(tls=authority.context(home)) as registry:
        registry.add_image([LAYER_BYTES], "1")
        assert engine.images.pull(registry.name)


@pytest.mark.usefixtures("_far")
def test_tls(engine: Engine, authority: Authority, home: Path) -> None:
    """A certificate of an unknown authority is refused before any request, and trusted once that is."""
    with FaultRegistry(tls=authority.context(home)) as registry:
        registry.add_image([LAYER_BYTES], "1")
        match = r"certificate is not valid: .*; install its authority below certs\.d"
        with pytest.raises(cl.RegistryUnavailable, match=match):
            engine.images.pull(registry.name)
        assert registry.seen == []
        assert visible(engine) == (set(), set())
        trust(home, authority, registry.host)
        assert engine.images.pull(registry.name)


@pytest.mark.usefixtures("_far")
def test_tls_is_not_given_up_on_the_way(
    engine: Engine, authority: Authority, home: Path, elsewhere: FaultRegistry
) -> None:
    """A registry with TLS cannot send the client to plain text, nor to a certificate that is not valid."""
    stranger = Authority("stranger")
    (home / "other").mkdir()
    with (
        FaultRegistry(tls=authority.context(home)) as registry,
        FaultRegistry(tls=stranger.context(home / "other")) as other,
    ):
        trust(home, authority, registry.host)
        registry.add_image([LAYER_BYTES], "1")
        other.add_image([LAYER_BYTES])
        registry.fault(BLOB, redirect(f"{elsewhere.url}/v2/x/blobs/{DIGEST}"))
        refuse(hasty(engine), registry, cl.RegistryError, "from TLS to plain text", heals=False)
        registry.heal()
        registry.fault(BLOB, redirect(f"{other.url}/v2/x/blobs/{DIGEST}"))
        refuse(hasty(engine), registry, cl.RegistryUnavailable, "certificate is not valid", heals=False)
        assert (elsewhere.seen, other.seen) == ([], [])


def test_plain_text_where_tls_is_due(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not speak TLS and is not this machine is refused; the error says how to allow it."""
    with FaultRegistry() as registry, forwarding(registry.port) as proxy:
        registry.add_image([LAYER_BYTES], "1")
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(cl.RegistryUnavailable, match=r"does not speak TLS; .* name it as insecure"):
            engine.images.pull("registry.invalid:5000/x:1")
        assert registry.seen == []
        config = cl.EngineConfig(insecure_registries=("registry.invalid:5000",))
        with cl.Engine(engine.root, engine.run_root, config) as careless:
            assert careless.images.pull("registry.invalid:5000/x:1")


# Proxies


def test_proxy(engine: Engine, authority: Authority, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is asked for a tunnel, and looks the name up."""
    with FaultRegistry(tls=authority.context(home)) as registry, forwarding(registry.port) as proxy:
        registry.add_image([LAYER_BYTES], "1")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        trust(home, authority, "registry.invalid")
        with pytest.raises(cl.RegistryUnavailable, match=r"certificate is not valid: .*registry\.invalid"):
            engine.images.pull("registry.invalid/x:1")
        assert set(proxy.asked) == {"CONNECT registry.invalid:443"}
        assert registry.seen == []
        monkeypatch.setenv("NO_PROXY", ".invalid")
        with pytest.raises(cl.RegistryUnavailable, match="no such host"):
            engine.images.pull("registry.invalid/x:1")


def test_password_of_a_proxy(
    engine: Engine, authority: Authority, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name and password in the address of a proxy are shown to the proxy, and to nobody else."""
    with FaultRegistry(tls=authority.context(home)) as registry, forwarding(registry.port) as proxy:
        registry.add_image([LAYER_BYTES], "1")
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//ann:s%40cret@"))
        monkeypatch.setattr(mirrors, "_is_loopback", lambda _host: True)  # any certificate will do
        assert engine.images.pull("registry.invalid/x:1")
        wanted = f"Proxy-Authorization: Basic {base64.b64encode(b'ann:s@cret').decode()}"
        assert all(wanted in head for head in proxy.heads)
        assert not any("proxy-authorization" in seen.headers for seen in registry.seen)


def test_proxy_that_refuses(engine: Engine, registry: FaultRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that does not lead there, or is not there, is named as the one that failed."""
    hasty(engine)
    with forwarding(registry.port, refuses=True) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(cl.RegistryUnavailable, match=r"the proxy does not lead there.*403"):
            engine.images.pull("registry.invalid/x:1")
    with pytest.raises(cl.RegistryUnavailable, match="proxy"):
        engine.images.pull("registry.invalid/x:1")
    assert engine.images.pull(registry.name), "this machine is reached without a proxy"
    monkeypatch.setenv("HTTPS_PROXY", "gopher://h.example")
    with pytest.raises(cl.InvalidInputError, match="scheme"):
        engine.images.pull("registry.invalid/x:1")
