"""Refusals of the registry, and the documents that tell clients about them.

Source: OCI distribution-spec 1.1, "Error Codes".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib._util import strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Refused", "error_document"]

_STATUS = {
    "BLOB_UNKNOWN": 404,
    "BLOB_UPLOAD_INVALID": 400,
    "BLOB_UPLOAD_UNKNOWN": 404,
    "DENIED": 403,
    "DIGEST_INVALID": 400,
    "MANIFEST_BLOB_UNKNOWN": 404,
    "MANIFEST_INVALID": 400,
    "MANIFEST_UNKNOWN": 404,
    "NAME_INVALID": 400,
    "NAME_UNKNOWN": 404,
    "SIZE_INVALID": 400,
    "TOOMANYREQUESTS": 429,
    "UNAUTHORIZED": 401,
    "UNSUPPORTED": 405,
    # Beyond the specification, which leaves answers from 500 on open.
    "UNAVAILABLE": 503,
    "UNKNOWN": 500,
}
_MAX_MESSAGE = 1000


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        detail: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say why.

        Args:
            code: One of the specification's.
            message: For people.
            status: Of the answer, where it is not the one that goes with the code.
            detail: For programs.
            headers: Sent along.
        """
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = _STATUS[code] if status is None else status
        self.detail = detail
        self.headers = dict(headers or {})


def error_document(refused: Refused) -> bytes:
    """Return the body of the answer."""
    error: dict[str, object] = {"code": refused.code, "message": refused.message[:_MAX_MESSAGE]}
    if refused.detail is not None:
        error["detail"] = refused.detail
    return strict_json.dumps({"errors": [error]})
