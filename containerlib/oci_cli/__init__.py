"""The OCI runtime's command line, which podman, containerd and dockerd drive."""

__all__: list[str] = []
