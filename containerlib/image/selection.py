"""Choosing among the images of a store, by Docker's rules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidOption
from containerlib.image.resolve import get_image
from containerlib.oci import timestamp
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["created_at", "select_images"]

_SPECIAL = re.compile(
    r"(?P<star>\*)|(?P<any>\?)|\[(?P<not>\^?+)(?P<class>(?:\\.|[^\\\]])+)\]|\\(?P<quoted>.)|(?P<bad>[\[\\])",
    re.DOTALL,
)


def select_images(
    stores: Stores,
    images: Iterable[ImageRecord],
    *,
    references: Sequence[str] = (),
    dangling: bool | None = None,
    labels: Mapping[str, str | None] | None = None,
    before: str | None = None,
    since: str | None = None,
) -> list[ImageRecord]:
    """Return those of `images` that all conditions hold for, in their order.

    Args:
        stores: Where `before` and `since` are looked up.
        images: The images.
        references: Patterns with ``*``, ``?`` and ``[...]``, of which none matches a slash; a name must match
            one of them, with its tag or without. Of the images' names only those stay that do.
        dangling: Whether the images have no name, or have one.
        labels: Labels that the images have; None for any value.
        before: An image that is younger.
        since: An image that is older. One without a date is older than all others.

    Raises:
        ImageNotFound: There is no image `before` or `since`.
        InvalidOption: A pattern is damaged.
    """
    tests: list[Callable[[ImageRecord], bool]] = []
    if dangling is not None:
        tests.append(lambda image: (not image.references) == dangling)
    if labels:
        tests.append(lambda image: _has_labels(image, labels))
    if before is not None:
        end = _age_key(get_image(stores, before))
        tests.append(lambda image: _age_key(image) < end)
    if since is not None:
        start = _age_key(get_image(stores, since))
        tests.append(lambda image: _age_key(image) > start)
    if references:
        images = _narrowed(images, [_pattern(text) for text in references])
    return [image for image in images if all(test(image) for test in tests)]


def created_at(image: ImageRecord) -> dt.datetime | None:
    """Return when `image` was made, if it says so."""
    return timestamp.parse(image.config.created)


def _age_key(image: ImageRecord) -> float:
    created = created_at(image)
    return float("-inf") if created is None else created.timestamp()


def _has_labels(image: ImageRecord, wanted: Mapping[str, str | None]) -> bool:
    labels = image.config.config.labels
    return all(key in labels and value in {None, labels[key]} for key, value in wanted.items())


def _narrowed(images: Iterable[ImageRecord], patterns: Sequence[re.Pattern[str]]) -> list[ImageRecord]:
    """Return the images that have a matching name, with only such names."""
    result = []
    for image in images:
        names = tuple(name for name in image.references if _matches(Reference.parse(name), patterns))
        if names:
            result.append(attrs.evolve(image, references=names))
    return result


def _matches(name: Reference, patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(
        pattern.fullmatch(name.familiar) or pattern.fullmatch(name.familiar_name) for pattern in patterns
    )


def _pattern(text: str) -> re.Pattern[str]:
    """Translate a pattern of Go's ``path.Match``, which Docker uses."""
    parts, end = [], 0
    for match in _SPECIAL.finditer(text):
        parts.append(re.escape(text[end : match.start()]))
        parts.append(_translate(text, match))
        end = match.end()
    parts.append(re.escape(text[end:]))
    try:
        return re.compile("".join(parts))
    except re.error:
        raise _damaged(text) from None


def _translate(text: str, match: re.Match[str]) -> str:
    if match["bad"]:
        raise _damaged(text)
    if match["star"]:
        return "[^/]*"
    if match["any"]:
        return "[^/]"
    if match["quoted"]:
        return re.escape(match["quoted"])
    # '-' keeps its meaning; everything else that means something to `re` within brackets is quoted.
    inside = re.sub(r"[\[\]^&~|]", r"\\\g<0>", re.sub(r"\\(.)", r"\1", match["class"]))
    return f"(?!/)[{match['not']}{inside}]"


def _damaged(text: str) -> InvalidOption:
    return InvalidOption("reference", text, "a damaged pattern; '*', '?' and '[a-z]' stand for characters")
