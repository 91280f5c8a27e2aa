"""The pure parts of the registry client: challenges, token services, refusals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import AuthenticationFailed, RateLimited, RemoteNotFound
from containerlib.registry.answers import Refusal, redacted, refused, retry_after_s
from containerlib.registry.auth import Authorizer
from containerlib.registry.challenge import Challenge, parse_challenges
from containerlib.registry.credentials import Credentials
from containerlib.registry.source import Source
from containerlib.registry.transport import Transport


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


def test_addresses_are_shown_without_secrets() -> None:
    """Neither user and password nor the query of an address is shown."""
    assert redacted("https://u:p@h.example/a?token=x") == "https://h.example/a"


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
    authorizer = Authorizer(
        Transport(),
        Credentials.load({"DOCKER_AUTH_CONFIG": config, "HOME": "/nonexistent"}, home="/nonexistent"),
    )
    with pytest.raises(AuthenticationFailed, match=reason) as caught:
        authorizer.grant(Source("r.example", "x"), [Challenge("bearer", {"realm": realm})], ["s"], "image")
    assert "hunter2" not in str(caught.value)


def test_refusals_become_typed_errors() -> None:
    """Status, codes and the time to wait of an answer are in the error."""
    body = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).encode()
    error = refused(Refusal("GET", "https://h.example/v2/x", 429, {"retry-after": "120"}, body), "image")
    assert isinstance(error, RateLimited)
    assert (error.retry_after_s, error.codes) == (120.0, ("TOOMANYREQUESTS",))
    assert isinstance(refused(Refusal("GET", "https://h.example/", 404, {}, b"<html>"), "x"), RemoteNotFound)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7.0), ("-1", None), ("9" * 40, 1e12), ("", None), ("soon", None)]
)
def test_time_to_wait_is_understood_or_ignored(text: str, expected: float | None) -> None:
    """Only a sensible number or date counts."""
    assert retry_after_s({"retry-after": text}) == expected


def test_date_to_wait_for_is_understood() -> None:
    """A date in the past means not to wait."""
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
