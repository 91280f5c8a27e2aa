"""What a pull leaves in the store, and finds there: beginnings of layers, damaged blobs, the old image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.fault_registry import FaultRegistry, digest_of
from support.faulty_pull import hasty, refuse, visible
from support.oci_layout import MANIFEST

import containerlib as cl
from containerlib.image.collect import collect
from containerlib.store.stores import Stores
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Engine

pytestmark = [pytest.mark.root]

LAYER_BYTES = archive(file(b"etc/motd", b"hello" * 40_000))
BLOB = f"GET /v2/x/blobs/{digest_of(LAYER_BYTES)}"


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with one image, honest until it is changed."""
    with FaultRegistry() as running:
        running.add_image([LAYER_BYTES], "1")
        yield running


def break_off(registry: FaultRegistry, count: int, *, data: bytes = LAYER_BYTES) -> None:
    """Let the registry give so many bytes of the layer, or of other data, and then no more."""
    registry.fault(BLOB, lambda _, reply: attrs.evolve(reply, body=data, cut=count), times=1)
    registry.fault(BLOB, lambda _, reply: attrs.evolve(reply, cut=0))


def ingests(engine: Engine) -> list[str]:
    """Return the names of the layers of which there is a beginning."""
    return os.listdir(f"{engine.root}/ingest")


def test_wrong_diff_id_is_refused(engine: Engine, registry: FaultRegistry) -> None:
    """A layer that is what the manifest says but not what the configuration says is not unpacked."""
    manifest = registry.add_image([LAYER_BYTES])
    other = registry.add_image([archive(file(b"other"))])
    registry.add_manifest({**manifest, "config": other["config"]}, MANIFEST, "1")
    refuse(engine, registry, cl.DigestMismatch, "layer", heals=False)


def test_layer_that_would_harm_the_host_is_refused(engine: Engine, registry: FaultRegistry) -> None:
    """A layer with a path out of its tree is refused, and nothing of the image stays."""
    registry.add_image([archive(file(b"../escape"))], "1")
    refuse(engine, registry, cl.UnsafePath, "leads out", heals=False)


def test_failed_pull_keeps_the_old_image(engine: Engine, registry: FaultRegistry) -> None:
    """When a tag has moved to something that cannot be pulled, what it was stays."""
    before = engine.images.pull(registry.name)
    lost = registry.add_image([archive(file(b"new"))], "1")["layers"][0]["digest"]
    del registry.blobs[lost]
    refuse(engine, registry, cl.RemoteNotFound, lost, heals=False)
    assert engine.images.get(registry.name) == before


def test_a_later_pull_goes_on_where_an_earlier_one_broke_off(engine: Engine, registry: FaultRegistry) -> None:
    """What a failed pull has of a layer is not fetched again by the next, which checks it all the same."""
    break_off(registry, 70_000)
    refuse(hasty(engine), registry, cl.RegistryUnavailable, "broke|ends after")
    assert registry.asked(BLOB)[-1].headers["range"] == "bytes=70000-"
    assert ingests(engine) == []


@pytest.mark.parametrize("count", [80_000, len(LAYER_BYTES) - 1])
def test_what_was_kept_of_a_lie_does_not_spoil_the_truth(
    engine: Engine, registry: FaultRegistry, count: int
) -> None:
    """The beginning of a wrong blob is dropped when the whole turns out wrong, and then fetched anew."""
    break_off(registry, count, data=bytes(count) + LAYER_BYTES[count:])
    refuse(hasty(engine), registry, cl.RegistryUnavailable, "broke|ends after")
    assert [each.headers.get("range") for each in registry.asked(BLOB)][-2:] == [f"bytes={count}-", None]
    assert ingests(engine) == []


def test_a_damaged_blob_of_the_store_is_fetched_again(engine: Engine, registry: FaultRegistry) -> None:
    """A blob with flipped bytes, or of another size, is found out when it is unpacked, and mended."""
    path = f"{engine.root}/blobs/sha256/{digest_of(LAYER_BYTES).removeprefix('sha256:')}"
    for damage in (b"x" * len(LAYER_BYTES), b"short"):
        image = engine.images.pull(registry.name)
        engine.images.remove(registry.name)
        assert not os.path.exists(path)
        with open(path, "wb") as blob:
            blob.write(damage)
        assert engine.images.pull(registry.name) == image
        with open(path, "rb") as blob:
            assert blob.read() == LAYER_BYTES


def test_prune_removes_what_was_never_finished(engine: Engine, registry: FaultRegistry) -> None:
    """The beginning of a layer is kept for the next pull until unneeded content is collected."""
    break_off(registry, 70_000)
    refuse(hasty(engine), registry, cl.RegistryUnavailable, "broke|ends after", heals=False)
    assert len(ingests(engine)) == 1
    collect(Stores.open(engine.root, engine.run_root))
    assert ingests(engine) == []
    assert visible(engine) == (set(), set())


def test_layers_are_unpacked_in_any_order(engine: Engine, registry: FaultRegistry) -> None:
    """Many layers, some alike and some empty, end up on each other in the order of the manifest."""
    same = archive(file(b"same", b"1"))
    layers = [archive(file(b"top", b"%d" % n), file(b"n%d" % n, b"x" * 1000 * (20 - n))) for n in range(12)]
    layers[3:3] = [same, archive(), same, archive()]
    registry.add_image(layers, "1")
    image = engine.images.pull(registry.name)
    assert read_file(image.record.lowers, "top", limit=10) == b"11"
    assert all(read_file(image.record.lowers, f"n{n}", limit=100_000) is not None for n in range(12))
    assert len(image.record.lowers) == len(layers)
