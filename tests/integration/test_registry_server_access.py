"""Who gets into our registry: passwords, tokens, TLS, and the addresses that it may be bound to."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from support.authority import Authority
from support.registry_http import RawRegistry, digest_of

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

HTPASSWD = (
    "# users\n"
    "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"
    "bob:$2y$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the same
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(user: str = "ann", word: str = "secret") -> dict[str, str]:
    """Return the header of a user with a password."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{word}'.encode()).decode()}"}


def bearer(token: str) -> dict[str, str]:
    """Return the header of a token."""
    return {"Authorization": f"Bearer {token}"}


def may(user: str, repository: str, action: str) -> bool:
    """Let ann do everything, and bob read what begins with ``public``."""
    return user == "ann" or (user == "bob" and action == "pull" and repository.startswith("public"))


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """Return a file of users."""
    path = tmp_path / "htpasswd"
    path.write_text(HTPASSWD, encoding="ascii")
    return path


@pytest.fixture
def by_password(users: Path) -> Iterator[RawRegistry]:
    """Return a client, without a password, of a registry that wants one."""
    with cl.Registry.serve(htpasswd=users, authorize=may) as server:
        yield RawRegistry(server.host, server.port)


@pytest.fixture
def by_token(users: Path) -> Iterator[RawRegistry]:
    """Return a client, without a token, of a registry that wants one."""
    with cl.Registry.serve(htpasswd=users, token_auth=True, authorize=may) as server:
        yield RawRegistry(server.host, server.port)


def token_of(raw: RawRegistry, user: str, *scopes: str) -> dict[str, str]:
    """Fetch a token, and return its header."""
    query = urlencode([("service", "containerlib"), *(("scope", scope) for scope in scopes)])
    reply = raw.ask("GET", f"/token?{query}", headers=basic(user))
    assert reply.status == 200, reply
    assert reply.json["token"] == reply.json["access_token"]
    assert 0 < reply.json["expires_in"] <= 3600
    return bearer(reply.json["token"])


def test_password_is_needed(by_password: RawRegistry) -> None:
    """Without a password, and with a wrong one, every request is 401 and says how to get in."""
    wrong = [
        {},
        basic(word="wrong"),
        basic(user="nobody"),
        basic(word="secret" + "x" * 100),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic YW5u"},
        {"Authorization": "Bearer " + basic()["Authorization"].partition(" ")[2]},
        {"Authorization": "Basic " + "QUFB" * 5000},
    ]
    for headers in wrong:
        for method, path in (
            ("GET", "/v2/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/x/manifests/1"),
            ("POST", "/v2/x/blobs/uploads/"),
            ("DELETE", "/v2/x/manifests/1"),
        ):
            reply = by_password.ask(method, path, headers=headers)
            assert reply.status in {401, 400}, (headers, path)  # too large a header is 400
            if reply.status == 401:
                assert reply.codes == ["UNAUTHORIZED"]
                assert reply.headers["www-authenticate"].startswith('Basic realm="')


def test_password_lets_in(by_password: RawRegistry) -> None:
    """With the password a user does what the registry's owner lets the user do, and nothing else."""
    by_password.headers = basic()
    by_password.push_image("public/x", "1")
    by_password.push_image("secret/x", "1")
    assert by_password.ask("GET", "/v2/_catalog").json == {"repositories": ["public/x", "secret/x"]}
    by_password.headers = basic("bob")
    assert by_password.ask("GET", "/v2/public/x/manifests/1").status == 200
    assert by_password.ask("GET", "/v2/_catalog").json == {"repositories": ["public/x"]}
    for method, path in (
        ("GET", "/v2/secret/x/manifests/1"),
        ("PUT", "/v2/public/x/manifests/1"),
        ("POST", "/v2/public/x/blobs/uploads/"),
        ("DELETE", "/v2/public/x/manifests/1"),
    ):
        reply = by_password.ask(method, path)
        assert (reply.status, reply.codes) == (403, ["DENIED"]), path


def test_mount_needs_the_right_to_read(users: Path) -> None:
    """A blob is not taken from a repository that the user may not read; the upload begins instead."""

    def rule(user: str, repository: str, _action: str) -> bool:
        return user == "ann" or repository == "mine"

    with cl.Registry.serve(htpasswd=users, authorize=rule) as server:
        raw = RawRegistry(server.host, server.port)
        raw.headers = basic()
        digest = raw.push_blob("secret", b"secret")
        raw.headers = basic("bob")
        assert raw.ask("POST", f"/v2/mine/blobs/uploads/?mount={digest}&from=secret").status == 202
        assert raw.ask("GET", f"/v2/mine/blobs/{digest}").status == 404


def test_token_is_asked_for_rightly(by_token: RawRegistry) -> None:
    """The answer without a token says where to get which; one with too little says that."""
    reply = by_token.ask("GET", "/v2/public/x/manifests/1")
    host = f"{by_token.host}:{by_token.port}"
    challenge = f'Bearer realm="http://{host}/token",service="containerlib"'
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == f'{challenge},scope="repository:public/x:pull"'
    assert by_token.ask("GET", "/v2/").headers["www-authenticate"] == challenge
    header = token_of(by_token, "ann", "repository:public/x:pull")
    less = by_token.ask("POST", "/v2/public/x/blobs/uploads/", headers=header)
    assert less.status == 401
    assert less.headers["www-authenticate"] == (
        f'{challenge},scope="repository:public/x:pull,push",error="insufficient_scope"'
    )
    strange = by_token.ask("GET", "/v2/", headers={"Host": 'evil"host'})
    assert 'evil"' not in strange.headers.get("www-authenticate", "")


def test_token_is_for_what_it_says(by_token: RawRegistry) -> None:
    """A token is good for its repositories and actions, as far as the user may do that, and for no others."""
    by_token.headers = token_of(
        by_token, "ann", "repository:public/x:pull,push repository:secret/x:*", "registry:catalog:*"
    )
    by_token.push_image("public/x", "1")
    by_token.push_image("secret/x", "1")
    assert by_token.ask("GET", "/v2/_catalog").status == 200
    assert by_token.ask("DELETE", "/v2/public/x/manifests/1").status == 401
    assert by_token.ask("GET", "/v2/other/tags/list").status == 401
    assert by_token.ask("DELETE", "/v2/secret/x/manifests/1").status == 202
    by_token.headers = token_of(by_token, "bob", "repository:public/x:pull,push", "repository:secret/x:pull")
    assert by_token.ask("GET", "/v2/public/x/manifests/1").status == 200
    assert by_token.ask("GET", "/v2/_catalog").status == 401
    for method, path in (("POST", "/v2/public/x/blobs/uploads/"), ("GET", "/v2/secret/x/tags/list")):
        assert by_token.ask(method, path).status == 401


def test_token_by_form(by_token: RawRegistry) -> None:
    """A token is given for the form of OAuth2, too; other grants are refused."""
    form = {"grant_type": "password", "service": "containerlib", "username": "ann", "password": "secret"}
    form |= {"scope": "repository:x:pull,push", "client_id": "test"}
    reply = by_token.ask("POST", "/token", urlencode(form).encode(), FORM)
    assert reply.status == 200
    by_token.headers = bearer(reply.json["access_token"])
    by_token.push_image("x", "1")
    for change, status in (({"password": "wrong"}, 401), ({"grant_type": "refresh_token"}, 400)):
        assert by_token.ask("POST", "/token", urlencode(form | change).encode(), FORM).status == status
    assert by_token.ask("POST", "/token", b"x" * 100_000, FORM).status == 413


def test_token_is_not_made_up(by_token: RawRegistry, users: Path) -> None:
    """A token that was changed, that another registry has signed, or that is none, is worth nothing."""
    good = token_of(by_token, "ann", "repository:x:pull,push")["Authorization"].partition(" ")[2]
    header, payload, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    with cl.Registry.serve(htpasswd=users, token_auth=True) as server:
        other = token_of(RawRegistry(server.host, server.port), "ann", "repository:x:pull,push")
    bad = [
        f"{header}.{payload}.{signature[:-2]}AA",
        f"{header}.{payload}x.{signature}",
        f"{none}.{payload}.",
        f"{none}.{payload}.{signature}",
        other["Authorization"].partition(" ")[2],
        "",
        "x" * 9000,
        "a.b.c",
        good.upper(),
    ]
    for token in bad:
        reply = by_token.ask("GET", "/v2/x/tags/list", headers=bearer(token) if len(token) < 8000 else {})
        assert reply.status == 401, token
    assert by_token.ask("GET", "/v2/x/tags/list", headers=bearer(good)).codes == ["NAME_UNKNOWN"]
    assert by_token.ask("GET", "/v2/", headers=basic()).status == 401


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("scope=nonsense", 400),
        ("scope=repository:../x:pull", 400),
        ("scope=repository:X:pull", 400),
        ("service=other", 400),
        ("&".join(["scope=repository:x:pull"] * 40), 400),
        ("", 200),
        ("scope=repository(plugin):x:pull", 200),
    ],
)
def test_token_for_nonsense(by_token: RawRegistry, query: str, status: int) -> None:
    """Scopes that are none are refused; none at all is a login and fine."""
    assert by_token.ask("GET", f"/token?{query}", headers=basic()).status == status


def test_token_needs_a_password(by_token: RawRegistry) -> None:
    """Without the right password there is no token."""
    for headers in ({}, basic(word="wrong")):
        reply = by_token.ask("GET", "/token?service=containerlib", headers=headers)
        assert (reply.status, reply.codes) == (401, ["UNAUTHORIZED"])
        assert reply.headers["www-authenticate"].startswith("Basic ")


def test_tls(tmp_path: Path, users: Path) -> None:
    """With a certificate the registry speaks TLS only, and its realm says so."""
    authority = Authority("test")
    certificate, key = authority.issue("server")
    (tmp_path / "cert").write_bytes(certificate)
    (tmp_path / "key").write_bytes(key)
    context = ssl.create_default_context(cadata=authority.pem.decode())
    with cl.Registry.serve(
        tls_cert=tmp_path / "cert", tls_key=tmp_path / "key", htpasswd=users, token_auth=True
    ) as server:
        assert server.url == f"https://{server.host}:{server.port}"
        raw = RawRegistry(server.host, server.port, context)
        challenge = raw.ask("GET", "/v2/").headers["www-authenticate"]
        assert challenge.startswith(f'Bearer realm="{server.url}/token"')
        raw.headers = token_of(raw, "ann", "repository:x:pull,push")
        digest = raw.push_blob("x", b"x" * 3_000_000)
        assert digest_of(raw.ask("GET", f"/v2/x/blobs/{digest}").body) == digest
        with pytest.raises((ConnectionError, OSError)):
            RawRegistry(server.host, server.port).ask("GET", "/v2/")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that this is refused is the test
def test_open_to_others(host: str, users: Path) -> None:
    """An address that others reach needs users, or the word that none are wanted."""
    with pytest.raises(cl.InvalidOption, match="allow_anonymous"):
        cl.Registry.serve(host=host)
    with cl.Registry.serve(host=host, allow_anonymous=True) as server:
        assert RawRegistry("localhost", server.port).ask("GET", "/v2/").status == 200
    with cl.Registry.serve(host=host, htpasswd=users) as server:
        assert RawRegistry("localhost", server.port).ask("GET", "/v2/").status == 401


def test_options_that_contradict(tmp_path: Path, engine: cl.Engine) -> None:
    """Options that cannot be honoured are errors that name them, and nothing is made or bound."""
    authority = Authority("test")
    certificate, _ = authority.issue("server")
    (tmp_path / "cert").write_bytes(certificate)
    _, key = authority.issue("other")
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "plain").write_text("ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", encoding="ascii")
    (tmp_path / "empty").write_text("# nobody\n", encoding="ascii")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("", encoding="ascii")
    bad: list[tuple[dict[str, object], str]] = [
        ({"directory": tmp_path / "n", "engine": engine}, "not both"),
        ({"upstream": "docker.io", "engine": engine}, "upstream"),
        ({"upstream": "docker.io", "read_only": True}, "read_only"),
        ({"upstream": "no host/x"}, "upstream"),
        ({"token_auth": True}, "htpasswd"),
        ({"authorize": may}, "htpasswd"),
        ({"tls_cert": tmp_path / "cert"}, "tls_key"),
        ({"tls_key": tmp_path / "key"}, "tls_cert"),
        ({"tls_cert": tmp_path / "cert", "tls_key": tmp_path / "key"}, "tls_cert"),
        ({"tls_cert": tmp_path / "none", "tls_key": tmp_path / "none"}, "tls_cert"),
        ({"htpasswd": tmp_path / "none"}, "No such file"),
        ({"htpasswd": tmp_path / "plain"}, "htpasswd -B"),
        ({"htpasswd": tmp_path / "empty"}, "no users"),
        ({"directory": tmp_path / "used"}, "neither empty"),
        ({"port": 70_000}, "port"),
        ({"public_url": 'https://a"b'}, "public_url"),
        ({"public_url": "https://a/path"}, "public_url"),
        ({"max_uploads": 0}, "max_uploads"),
        ({"upload_expiry_s": 0.0}, "upload_expiry_s"),
    ]
    for options, text in bad:
        with pytest.raises(cl.InvalidInputError, match=text):
            cl.Registry.serve(**options)  # type: ignore[arg-type]
    assert not (tmp_path / "n").exists()


def test_command_says_what_is_wrong() -> None:
    """The command refuses what the function refuses, in one line, with 125."""
    for options in (["--host=0.0.0.0"], ["--token-auth"], ["--htpasswd=/no/such/file"], ["--upstream=x y"]):
        command = [sys.executable, "-m", "containerlib", "registry", "serve", "--port=0", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr.startswith("containerlib: ")
        assert done.stderr.count("\n") == 1


def test_port_is_held(users: Path) -> None:
    """A port that is in use is an error of the system, and a free one is told; closing twice is fine."""
    with cl.Registry.serve(htpasswd=users) as server:
        assert server.port
        with pytest.raises(OSError, match="in use"):
            cl.Registry.serve(port=server.port)
        server.close()
        with cl.Registry.serve(port=server.port) as again:
            assert again.url == server.url
    server.close()


def test_process_ends_without_closing(tmp_path: Path) -> None:
    """A process that ends with a server still open ends, and its temporary directory is gone."""
    script = "import containerlib as cl; s = cl.Registry.serve(); print(s)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_behind_a_proxy(users: Path) -> None:
    """Where clients come by another name, tokens are to be fetched under that."""
    with cl.Registry.serve(htpasswd=users, token_auth=True, public_url="https://registry.site") as server:
        reply = RawRegistry(server.host, server.port).ask("GET", "/v2/")
        assert reply.headers["www-authenticate"].startswith('Bearer realm="https://registry.site/token",')


def test_address_of_version_6(users: Path, engine: cl.Engine) -> None:
    """On an IPv6 address the registry has a name that images can have."""
    with cl.Registry.serve(host="::1", htpasswd=users, token_auth=True) as server:
        assert server.url == f"http://[::1]:{server.port}"
        engine.registry(server.name).login("ann", "secret", store=False)
        image = engine.images.from_host(["sh"], reference="x:1")
        assert image.push(f"{server.name}/x:1").digest == image.digest
        assert engine.registry(server.name).tags("x") == ["1"]


def test_forgotten_server_is_noticed() -> None:
    """A server that is collected without having been closed warns, and ends."""
    server = cl.Registry.serve()
    with pytest.warns(ResourceWarning, match="was not closed"):
        server.__del__()
    assert "closed" in repr(server)
