"""Everything that is known about one network, as one value and in Docker's form."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import attrs

from containerlib.oci import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.network.record import NetworkRecord

__all__ = ["NetworkInspection"]


@attrs.frozen(kw_only=True)
class NetworkInspection:
    """What is known about one network at one moment.

    Attributes:
        record: What was written down of it.
        containers: The addresses of its containers by their names; empty for none yet.
    """

    record: NetworkRecord
    containers: Mapping[str, str]

    def to_json(self) -> dict[str, object]:
        """Return the object that ``docker network inspect`` prints, as far as there is something to say."""
        record = self.record
        length = record.subnet.prefixlen
        return {
            "Name": record.name,
            "Id": record.id,
            "Created": timestamp.text(dt.datetime.fromtimestamp(record.created_at, dt.UTC)),
            "Scope": "local",
            "Driver": "bridge",
            "EnableIPv6": False,
            "IPAM": {
                "Driver": "default",
                "Config": [{"Subnet": str(record.subnet), "Gateway": str(record.gateway)}],
            },
            "Internal": record.internal,
            "Containers": {
                name: {"Name": name, "IPv4Address": f"{address}/{length}"}
                for name, address in self.containers.items()
                if address
            },
            "Options": {"com.docker.network.driver.mtu": str(record.mtu)},
            "Labels": dict(record.labels),
        }
