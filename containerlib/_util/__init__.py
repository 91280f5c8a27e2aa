"""Small building blocks without knowledge of containers: durable file writes, strict JSON, file locks."""
