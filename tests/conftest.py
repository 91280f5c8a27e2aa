"""Plug-ins of the test suite; see their own descriptions.

They are found because the pytest configuration puts this directory on the import path.
"""

from __future__ import annotations

pytest_plugins = [
    "pytester",
    "support.checkout",
    "support.enosys",
    "support.capabilities",
    "support.leaks",
    "support.untouched",
    "support.engine",
    "support.documents",
    "support.debian_image",
    "support.peers",
    "support.oci",
]
