"""What has happened, and happens, to the objects of a store, whoever brings it about."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from typing import TYPE_CHECKING, Any, Self

from attrs import field, frozen

from containerlib._native.watch import Watch
from containerlib._util.atomic_file import make_directory
from containerlib.container.config_document import native_text
from containerlib.container.detached import read_record
from containerlib.errors import ContainerlibError, InvalidReference
from containerlib.oci import timestamp
from containerlib.oci.reference import Reference
from containerlib.store.journal import Tail

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from containerlib.store.journal import JournalRecord
    from containerlib.store.layout import Layout

__all__ = ["Event", "EventFilter", "EventReader", "read_events"]

_HEALTH = ("none", "starting", "healthy", "unhealthy")
_LEAST_PREFIX = 4


@frozen(kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        time: When.
        type: Of what kind of object: ``"container"``, ``"image"``, ``"network"``, ``"engine"``.
        action: What, in Docker's words: ``"create"``, ``"start"``, ``"die"``, ``"destroy"``, ``"pull"``, ...
        id: The object's id.
        name: Its name at that time; empty if it has none, or none is known any more.
        attributes: What else is known: for a container its image, its labels and what belongs to the action,
            such as ``exitCode``.
    """

    time: dt.datetime
    type: str
    action: str
    id: str
    name: str = ""
    attributes: Mapping[str, str] = field(factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the object that ``docker events --format json`` prints."""
        nanoseconds = round(self.time.timestamp() * 1_000_000) * 1000
        found: dict[str, object] = {
            "Type": self.type,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": {**self.attributes, "name": self.name}},
            "scope": "local",
            "time": nanoseconds // 1_000_000_000,
            "timeNano": nanoseconds,
        }
        if self.type == "container":
            found |= {"status": self.action, "id": self.id, "from": self.attributes.get("image", "")}
        return found

    def __str__(self) -> str:
        """The line that ``docker events`` prints."""
        words = {**self.attributes, "name": self.name}
        shown = ", ".join(f"{key}={value}" for key, value in sorted(words.items()) if value)
        return f"{timestamp.text(self.time)} {self.type} {self.action} {self.id} ({shown})"


@frozen(kw_only=True)
class EventFilter:
    """Which events are wanted: of each kind of condition that is given, one has to hold.

    Attributes:
        types: Kinds of objects.
        actions: Actions; ``"health_status"`` for every one that begins with it.
        containers: Names of containers, their ids, or beginnings of these.
        images: Names of images, or of the images of containers.
        labels: Labels that a container has, each with its value or None for any; all have to be there.
    """

    types: Collection[str] = ()
    actions: Collection[str] = ()
    containers: Collection[str] = ()
    images: Collection[str] = ()
    labels: Mapping[str, str | None] = field(factory=dict)

    def takes(self, event: Event) -> bool:
        """Whether an event is wanted."""
        if self.types and event.type not in self.types:
            return False
        words = {event.action, event.action.partition(":")[0]}
        if self.actions and words.isdisjoint(self.actions):
            return False
        if self.containers and not (event.type == "container" and self._is_one_of(event, self.containers)):
            return False
        if self.images:
            image = event.attributes.get("image", "") if event.type == "container" else event.name
            if image not in self.images and not (event.type == "image" and event.id in self.images):
                return False
        return all(
            event.attributes.get(name) == value if value is not None else name in event.attributes
            for name, value in self.labels.items()
        )

    @staticmethod
    def _is_one_of(event: Event, keys: Collection[str]) -> bool:
        return event.name in keys or any(
            len(key) >= _LEAST_PREFIX and event.id.startswith(key) for key in keys
        )


def read_events(reader: EventReader) -> Iterator[Event]:
    """Yield what happened, oldest first, and then what happens, until the reader is over."""
    with reader:
        while not reader.is_over:
            yield from reader.step()
            if not reader.is_over:
                reader.wait()


class EventReader:
    """One reading of events, in steps of which none waits; a context manager. It begins when it is made."""

    def __init__(
        self,
        layout: Layout,
        *,
        since_s: float | None,
        until_s: float | None,
        follow: bool,
        chosen: EventFilter,
    ) -> None:
        """Begin.

        Args:
            layout: The store.
            since_s: Only from this time on, in seconds since the epoch; None for only what happens from now
                on, or with `follow` false for everything that is known.
            until_s: End at this time; None for no end.
            follow: Whether what happens from now on is waited for.
            chosen: What is wanted.
        """
        self._reading = _Reading(layout, chosen)
        self._tail = Tail(layout.events)
        self._watch: Watch | None = None
        if follow:
            make_directory(layout.events)
            self._watch = Watch(layout.events)
        self._begin_ns = time.time_ns() if since_s is None and follow else round((since_s or 0.0) * 1e9)
        self._until_s = until_s
        self.is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; safe to call again."""
        self.is_over = True
        self._tail.close()
        if self._watch is not None:
            self._watch.close()

    def __del__(self) -> None:
        if hasattr(self, "is_over"):
            self.close()

    def step(self) -> list[Event]:
        """What has happened since the last step."""
        found = []
        left_s = self.left_s
        for record in self._tail.read():
            event = self._reading.event_of(record)
            if self._until_s is not None and record.time_ns > self._until_s * 1e9:
                continue  # written by another, so perhaps not in order
            if record.time_ns >= self._begin_ns and event is not None:
                found.append(event)
        if self._watch is None or (left_s is not None and left_s <= 0):
            self.is_over = True
        return found

    @property
    def left_s(self) -> float | None:
        """How long it may take until the next step has something to do, at most."""
        return None if self._until_s is None else max(0.0, self._until_s - time.time())

    @property
    def fds(self) -> list[int]:
        """Descriptors of which one becomes readable when the next step has something to do."""
        return [] if self._watch is None else [self._watch.fileno()]

    def settle(self) -> None:
        """After waiting for `fds`: from now on they tell of what is new."""
        if self._watch is not None:
            self._watch.wait(timeout_s=0)

    def wait(self) -> None:
        """Wait until the next step has something to do."""
        if self._watch is not None:
            self._watch.wait(timeout_s=self.left_s)


class _Reading:
    """Makes events of records: those of supervisors say nothing but an id, so what is known of it is kept."""

    def __init__(self, layout: Layout, chosen: EventFilter) -> None:
        self._layout = layout
        self._chosen = chosen
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def event_of(self, record: JournalRecord) -> Event | None:
        """The event, if it is wanted."""
        event = _own_event(record) if record.kind == "text" else self._supervisors_event(record)
        if event.type == "container":
            if event.action == "destroy":
                self._known.pop(event.id, None)
            elif record.kind == "text" and event.action in {"create", "rename"}:
                labels = {key: value for key, value in event.attributes.items() if key != "oldName"}
                self._known[event.id] = event.name, labels
        return event if self._chosen.takes(event) else None

    def _supervisors_event(self, record: JournalRecord) -> Event:
        name, attributes = self._known.get(record.id) or self._look_up(record.id)
        action, more = _told(record)
        return Event(
            time=_time(record),
            type="container",
            action=action,
            id=record.id,
            name=name,
            attributes=_shown({**attributes, **more}),
        )

    def _look_up(self, container_id: str) -> tuple[str, dict[str, str]]:
        """What the store knows of a container that was made before the journal begins."""
        try:
            found = read_record(self._layout, container_id)
        except (ContainerlibError, OSError):
            found = None
        if found is None:
            return "", {}
        self._known[container_id] = found.name, {**found.config.labels, "image": found.image_name}
        return self._known[container_id]


def _told(record: JournalRecord) -> tuple[str, dict[str, str]]:
    """What a supervisor's record says: an action, and what belongs to it."""
    if record.kind == "die":
        return "die", {"exitCode": str(record.value)} | ({"signal": str(record.code)} if record.code else {})
    if record.kind == "health":
        word = _HEALTH[record.value] if 0 <= record.value < len(_HEALTH) else "unknown"
        return f"health_status: {word}", {}
    return record.kind, {}


def _own_event(record: JournalRecord) -> Event:
    document: Mapping[str, Any] = record.document
    attributes = document["attributes"]
    if document["type"] == "container":
        attributes = _shown({native_text(key): native_text(value) for key, value in attributes.items()})
    return Event(
        time=_time(record),
        type=document["type"],
        action=document["action"],
        id=record.id,
        name=document["name"],
        attributes=attributes,
    )


def _shown(attributes: dict[str, str]) -> dict[str, str]:
    """The same, with the image as people write it."""
    with contextlib.suppress(InvalidReference):
        attributes["image"] = Reference.parse(attributes.get("image", "")).familiar
    return attributes


def _time(record: JournalRecord) -> dt.datetime:
    return dt.datetime.fromtimestamp(record.time_ns / 1e9, dt.UTC)
