"""Registries that break off, dawdle, are out of order or want to be asked later."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.fault_registry import FaultRegistry, Reply, Seen, digest_of, refusal
from support.faulty_pull import hasty, refuse

import containerlib as cl
from containerlib.registry.transport import TransportSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.fault_registry import Fault

    from containerlib import Engine

pytestmark = [pytest.mark.root]

LAYER_BYTES = archive(file(b"etc/motd", bytes(range(251)) * 800))
BLOB = f"GET /v2/x/blobs/{digest_of(LAYER_BYTES)}"
TAG = "GET /v2/x/manifests/1"


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with one image, honest until it is changed."""
    with FaultRegistry() as running:
        running.add_image([LAYER_BYTES], "1")
        yield running


def cut(count: int) -> Fault:
    """Return a fault that ends the connection after so many bytes."""
    return lambda _, reply: attrs.evolve(reply, cut=count)


def ranges(registry: FaultRegistry) -> list[str | None]:
    """Return the ranges that the layer was asked for in."""
    return [each.headers.get("range") for each in registry.asked(BLOB)]


@pytest.mark.parametrize(
    "count", [0, 1, 2, 511, 512, 65_535, 65_536, 65_537, 131_072, len(LAYER_BYTES) - 1, len(LAYER_BYTES)]
)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_break_is_continued(engine: Engine, registry: FaultRegistry, count: int, framing: str) -> None:
    """Wherever the connection breaks, the next request asks for the rest, and the layer is whole."""
    registry.fault(BLOB, lambda _, reply: attrs.evolve(reply, cut=count, framing=framing), times=1)
    engine.images.pull(registry.name)
    rest = {0: None, len(LAYER_BYTES): ...}.get(count, f"bytes={count}-")
    assert ranges(registry) == ([None] if rest is ... else [None, rest])


def test_many_breaks(engine: Engine, registry: FaultRegistry) -> None:
    """A connection that breaks more often than it may without getting further, but gets further, is used."""
    registry.fault(BLOB, cut(70_000), times=1)
    registry.fault(BLOB, cut(66_000), times=1)
    engine.images.pull(registry.name)
    assert ranges(registry) == [None, "bytes=70000-", "bytes=136000-"]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_breaks_that_get_nowhere(engine: Engine, registry: FaultRegistry, count: int) -> None:
    """A registry that sends a few bytes each time is given up, and a later pull goes on from there."""
    registry.fault(BLOB, cut(count))
    refuse(hasty(engine), registry, cl.RegistryUnavailable, "broke.*try again")
    assert len(registry.asked(BLOB)) < 30
    assert ranges(registry)[-1] == (f"bytes={8 * count}-" if count else None)


def again(_request: Seen, reply: Reply) -> Reply:
    """Ignore that a range was asked for."""
    whole = LAYER_BYTES
    return attrs.evolve(reply, status=200, body=whole)


def test_whole_blob_instead_of_the_rest(engine: Engine, registry: FaultRegistry) -> None:
    """A registry that knows no ranges begins anew, and what is here already is skipped."""
    registry.fault(BLOB, cut(100_000), times=1)
    registry.fault(BLOB, again)
    engine.images.pull(registry.name)
    assert ranges(registry) == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "place", ["bytes 0-9/10", "bytes 99999-201727/201728", "bytes */201728", "nonsense", "bytes 1" + "0" * 40]
)
def test_other_range_than_was_asked_for(engine: Engine, registry: FaultRegistry, place: str) -> None:
    """An answer for another place is refused before a byte of it is used."""
    registry.fault(BLOB, cut(100_000), times=1)
    registry.fault(BLOB, lambda _, reply: reply.having(content_range=place))
    refuse(engine, registry, cl.RegistryError, "another range")


def test_range_that_is_refused(engine: Engine, registry: FaultRegistry) -> None:
    """A registry that refuses to go on is asked for the whole layer once."""
    registry.fault(BLOB, cut(100_000), times=1)
    registry.fault(BLOB, lambda _, __: refusal(416), times=1)
    engine.images.pull(registry.name)
    assert ranges(registry) == [None, "bytes=100000-", None]


def test_range_of_other_bytes(engine: Engine, registry: FaultRegistry) -> None:
    """When the two parts do not belong together, the layer is refused."""
    registry.fault(BLOB, cut(100_000), times=1)
    registry.fault(BLOB, lambda _, reply: attrs.evolve(reply, body=bytes(len(reply.body))))
    refuse(engine, registry, cl.DigestMismatch, "expected")


@pytest.mark.parametrize("target", [TAG, BLOB])
def test_drip(engine: Engine, registry: FaultRegistry, target: str) -> None:
    """A registry that sends a byte now and then, headers included, is given up although it never stalls."""
    registry.fault(target, lambda _, reply: attrs.evolve(reply, drip_s=0.01))
    hasty(engine, window_s=0.1, attempts=2)
    match = r"bytes in 0 s.*less than 1048576 a second"
    error = refuse(engine, registry, cl.RegistryUnavailable, match, heals=False)
    assert "mirror" in str(error)
    registry.heal()
    hasty(engine).images.pull(registry.name)


def test_stall(engine: Engine, registry: FaultRegistry) -> None:
    """A registry that says nothing any more is given up."""

    def stall(_request: Seen, reply: Reply) -> Reply:
        return attrs.evolve(reply, drip_s=100.0)

    registry.fault(TAG, stall)
    hasty(engine, stall_timeout_s=0.2, attempts=2)
    with pytest.raises(cl.RegistryUnavailable, match="does not answer in time; try again later"):
        engine.images.pull(registry.name)
    registry.stopping.set()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("target", [TAG, BLOB])
def test_out_of_order_for_a_moment(engine: Engine, registry: FaultRegistry, target: str, status: int) -> None:
    """A registry that is out of order is asked again, and after some times given up."""
    registry.instead(target, refusal(status), times=2)
    hasty(engine).images.pull(registry.name)
    assert len(registry.asked(target)) == 3
    engine.images.remove(registry.name)
    registry.instead(target, refusal(status, "UNKNOWN", "disk on fire"))
    with pytest.raises(cl.RegistryUnavailable, match=f"{status}: disk on fire.; try again later") as caught:
        engine.images.pull(registry.name)
    assert (caught.value.status, len(registry.asked(target))) == (status, 6)


@pytest.mark.parametrize(
    "text",
    ["1000000000", "9" * 5000, email.utils.formatdate(time.time() + 1e8)],
    ids=["seconds", "digits", "date"],
)
def test_later_than_anybody_waits(engine: Engine, registry: FaultRegistry, text: str) -> None:
    """Who is asked to come back in years gives up at once, and the error says when."""
    registry.fault(TAG, lambda _, __: refusal(429, "TOOMANYREQUESTS", retry_after=text))
    error = refuse(hasty(engine), registry, cl.RateLimited, "too many requests; it asks to wait .* log in")
    assert error.retry_after_s is not None
    assert error.retry_after_s > 1e7
    assert len(registry.asked(TAG)) == 2  # the second one is the honest pull


@pytest.mark.parametrize("text", ["0", "-5", "soon", "", "Wed, 21 Oct 2015 07:28:00 GMT", "1.5e9", "٣"])
@pytest.mark.parametrize("status", [429, 503])
def test_time_to_wait_that_is_no_time(
    engine: Engine, registry: FaultRegistry, status: int, text: str
) -> None:
    """What is past, negative or not understood means a wait of our own, and then the same answer is final."""
    registry.fault(TAG, lambda _, __: refusal(status, retry_after=text.encode().decode("latin-1")))
    kind = cl.RateLimited if status == 429 else cl.RegistryUnavailable
    refuse(hasty(engine, attempts=4), registry, kind, "later")
    assert len(registry.asked(TAG)) == 5


def test_waits_grow_and_end() -> None:
    """Waits double with some spread up to the limit, are as long as asked for, and never longer than that."""
    settings = TransportSettings(first_wait_s=1.0, max_wait_s=30.0)
    for attempt, longest in ((1, 1.0), (2, 2.0), (3, 4.0), (10, 30.0), (500, 30.0)):
        waits = {settings.wait_s(attempt, None) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
    assert settings.wait_s(1, 20.0) == 20.0
    assert 0.5 <= settings.wait_s(1, 0.0) <= 1.0


def test_refusal_that_is_never_taken_back(engine: Engine, registry: FaultRegistry) -> None:
    """A registry that wants credentials again and again is asked twice, and the error says what failed."""
    registry.tokens = set()
    registry.fault(
        "GET /v2/", lambda seen, reply: _challenge(registry) if "token" not in seen.path else reply
    )
    refuse(
        hasty(engine), registry, cl.AuthenticationFailed, r"access denied \(401.*not accepted; log in again"
    )
    assert registry.issued >= 1
    assert len(registry.asked(TAG)) == 4  # two of them are the honest pull


def _challenge(registry: FaultRegistry) -> Reply:
    return refusal(401, "UNAUTHORIZED", www_authenticate=f'Bearer realm="{registry.url}/token"')


@pytest.mark.parametrize(
    ("reply", "kind", "match"),
    [
        (refusal(401), cl.AuthenticationFailed, "it wants credentials; log in"),
        (refusal(401, www_authenticate="Digest realm=x"), cl.AuthenticationFailed, "unknown way"),
        (refusal(401, www_authenticate='Basic realm="x"'), cl.AuthenticationFailed, "none are known; log in"),
        (refusal(401, www_authenticate="\x01,,=;"), cl.AuthenticationFailed, "it wants credentials"),
        (refusal(403, "DENIED", "not yours"), cl.AuthenticationFailed, "not yours.*log in"),
        (refusal(405), cl.RegistryError, "405.*no registry"),
        (refusal(418), cl.RegistryError, "answered 418"),
        (Reply(status=200, headers={"Content-Type": "text/html"}), cl.InvalidManifest, "media type"),
        (Reply(status=204), cl.RegistryError, "answered 204"),
        (Reply(status=301), cl.RegistryError, "answered 301"),
        (refusal(404, "MANIFEST_UNKNOWN"), cl.RemoteNotFound, "tags there are: 1"),
        (Reply(status=400, body=b"\xff" * 100_000), cl.RegistryError, "answered 400"),
        (Reply(status=400, body=b'{"errors": [{"code": 7, "message": {}}, 8]}'), cl.RegistryError, "400"),
        (Reply(status=500, body=b"x", cut=0), cl.RegistryUnavailable, "500"),
    ],
)
def test_refusals(
    engine: Engine, registry: FaultRegistry, reply: Reply, kind: type[cl.RegistryError], match: str
) -> None:
    """Each kind of refusal has its own error, which says what to do."""
    registry.fault(TAG, lambda _, __: reply)
    refuse(hasty(engine), registry, kind, match)


def test_message_of_a_registry_is_kept_short(engine: Engine, registry: FaultRegistry) -> None:
    """What a registry says reaches the message without control characters, and not at any length."""
    registry.fault(TAG, lambda _, __: refusal(400, "X", "\x1b[2J" + "y" * 50_000))
    error = refuse(engine, registry, cl.RegistryError, "answered 400")
    assert "\x1b" not in str(error)
    assert len(str(error)) < 1000
