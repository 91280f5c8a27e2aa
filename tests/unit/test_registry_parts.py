"""The pure parts of the registry client: challenges, credentials, proxies, hosts."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import AuthenticationFailed, InvalidInputError, RateLimited, RemoteNotFound
from containerlib.oci.reference import Reference
from containerlib.registry.answers import Refusal, redacted, refused, retry_after_s
from containerlib.registry.auth import Authorizer
from containerlib.registry.challenge import Challenge, parse_challenges
from containerlib.registry.credentials import Credential, Credentials
from containerlib.registry.locate import is_loopback, source_of
from containerlib.registry.proxies import proxy_for
from containerlib.registry.source import Source
from containerlib.registry.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path


def test_challenges_are_read() -> None:
    """Schemes and parameters are found, quoted or not, with commas and escapes in them."""
    header = 'Bearer realm="https://a/t",service="r, \\"x\\"",scope=repository:a:pull, Basic realm="b"'
    assert parse_challenges(header) == [
        Challenge("bearer", {"realm": "https://a/t", "service": 'r, "x"', "scope": "repository:a:pull"}),
        Challenge("basic", {"realm": "b"}),
    ]
    assert parse_challenges("Basic") == [Challenge("basic", {})]
    assert parse_challenges("x" * 10_000) == []


@given(st.text(max_size=200))
def test_any_header_is_survived(header: str) -> None:
    """No header makes the parser fail."""
    parse_challenges(header)


def test_credentials_come_from_the_most_specific_entry(tmp_path: Path) -> None:
    """An entry for a repository wins over one for its namespace, and that over one for the host."""
    auths = {
        "r.example:5000": {"auth": base64.b64encode(b"host:h").decode()},
        "r.example:5000/team": {"username": "team", "password": "t"},
        "r.example:5000/team/app": {"identitytoken": "token"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "unknown": 1}), encoding="ascii")
    found = Credentials({"DOCKER_CONFIG": str(tmp_path), "HOME": "/nonexistent"})
    assert found.find("r.example:5000", "other/app") == Credential("host", "h")
    assert found.find("r.example:5000", "team/x") == Credential("team", "t")
    assert found.find("r.example:5000", "team/app") == Credential("", "", "token")
    assert found.find("r.example", "team/app") is None


def test_hub_is_known_by_its_old_address() -> None:
    """Credentials for the default registry are found under the key that Docker writes."""
    auths = {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}
    environment = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": auths}), "HOME": "/nonexistent"}
    assert Credentials(environment).find("registry-1.docker.io", "library/x") == Credential("u", "p")


def test_helper_is_asked_for_its_registry_only(tmp_path: Path) -> None:
    """A credential helper is run with the registry's name, and not for another registry."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        f'#!/bin/sh\nread server\necho "$server" >>{tmp_path}/asked\n'
        'echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"u\\",\\"Secret\\":\\"s\\"}"\n',
        encoding="ascii",
    )
    helper.chmod(0o755)
    config = json.dumps({"credHelpers": {"a.example": "test"}})
    environment = {"DOCKER_AUTH_CONFIG": config, "PATH": f"{tmp_path}:/bin", "HOME": "/nonexistent"}
    found = Credentials(environment)
    assert found.find("b.example") is None
    assert not (tmp_path / "asked").exists()
    assert found.find("a.example") == Credential("u", "s")
    assert (tmp_path / "asked").read_text(encoding="ascii") == "a.example\n"


@pytest.mark.parametrize("name", ["../evil", "a b", "", "-x"])
def test_helper_names_are_checked(name: str) -> None:
    """Something that is not the name of a program is not run."""
    config = json.dumps({"credHelpers": {"a.example": name}})
    with pytest.raises((InvalidInputError, AuthenticationFailed)):
        Credentials({"DOCKER_AUTH_CONFIG": config, "HOME": "/nonexistent"}).find("a.example")


@pytest.mark.parametrize("text", ["{", '{"auths": []}', '{"auths": {"a.example": {"auth": "%%%"}}}', "[]"])
def test_damaged_credentials_are_named(text: str) -> None:
    """A file that cannot be read says where it came from, and nothing of what is in it."""
    with pytest.raises(InvalidInputError, match="DOCKER_AUTH_CONFIG") as caught:
        Credentials({"DOCKER_AUTH_CONFIG": text, "HOME": "/nonexistent"}).find("a.example")
    assert "%%%" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    """Neither the form for people nor the key of a credential holds its secret."""
    credential = Credential("user", "hunter2", "token7")
    assert "hunter2" not in repr(credential) + credential.key
    assert "token7" not in repr(credential) + credential.key
    assert redacted("https://u:p@h.example/a?token=x") == "https://h.example/a"


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://a.example/x", {}, None),
        ("https://a.example/x", {"HTTPS_PROXY": "p.example:3128"}, "http://p.example:3128"),
        ("https://a.example/x", {"https_proxy": "http://p.example"}, "http://p.example"),
        ("http://a.example/x", {"https_proxy": "http://p.example"}, None),
        ("http://a.example/x", {"ALL_PROXY": "http://p.example"}, "http://p.example"),
        ("https://a.b.example/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "x, .b.example"}, None),
        ("https://ab.example/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "b.example"}, "http://p"),
        ("https://10.1.2.3/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://a.example/x", {"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, None),
        ("http://127.0.0.1:5000/x", {"ALL_PROXY": "http://p"}, None),
    ],
)
def test_proxy_follows_the_environment(url: str, environment: dict[str, str], expected: str | None) -> None:
    """Proxies are chosen by scheme, and names, suffixes and networks are exempt."""
    assert proxy_for(url, environment) == expected


def test_only_this_machine_and_named_hosts_may_be_insecure() -> None:
    """Plain http is allowed for loopback and for hosts that were named, and for nothing else."""
    assert [is_loopback(host) for host in ("localhost:5000", "127.9.9.9", "[::1]:5000", "10.0.0.1")] == [
        True,
        True,
        True,
        False,
    ]
    secure = source_of(Reference.parse("r.example/x:1"))
    assert (secure.verify_tls, secure.allows_http, secure.host) == (True, False, "r.example")
    assert source_of(Reference.parse("r.example:1/x:1"), insecure=["r.example:1"]).allows_http
    assert source_of(Reference.parse("alpine")).host == "registry-1.docker.io"


@pytest.mark.parametrize(
    ("realm", "reason"),
    [
        ("http://auth.example/token", "plain text"),
        ("https://127.0.0.1/token", "this machine"),
        ("https://169.254.169.254/latest", "this machine"),
        ("https://[fd00::1]/token", "this machine"),
        ("https://10.0.0.1:8443/token", "this machine"),
        ("https://user@auth.example/token", "web address"),
        ("file:///etc/passwd", "web address"),
        ("", "web address"),
    ],
)
def test_token_service_must_be_where_it_may_be(realm: str, reason: str) -> None:
    """A registry cannot send credentials to plain text, to this machine, or to its network."""
    config = json.dumps({"auths": {"r.example": {"username": "u", "password": "hunter2"}}})
    authorizer = Authorizer(Transport(), Credentials({"DOCKER_AUTH_CONFIG": config, "HOME": "/nonexistent"}))
    with pytest.raises(AuthenticationFailed, match=reason) as caught:
        authorizer.header(Source("r.example", "x"), [Challenge("bearer", {"realm": realm})], "s", "image")
    assert "hunter2" not in str(caught.value)


def test_refusals_become_typed_errors() -> None:
    """Status, codes and the time to wait of an answer are in the error."""
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).encode()
    error = refused(Refusal("GET", "https://h.example/v2/x", 429, {"retry-after": "120"}, body), "image")
    assert isinstance(error, RateLimited)
    assert (error.retry_after_s, error.codes) == (120.0, ("TOOMANYREQUESTS",))
    assert isinstance(refused(Refusal("GET", "https://h.example/", 404, {}, b"<html>"), "x"), RemoteNotFound)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7.0), ("-1", None), ("9" * 40, None), ("", None), ("soon", None)]
)
def test_time_to_wait_is_understood_or_ignored(text: str, expected: float | None) -> None:
    """Only a sensible number or date counts."""
    assert retry_after_s({"retry-after": text}) == expected


def test_date_to_wait_for_is_understood() -> None:
    """A date in the past means not to wait."""
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
