"""Pure values of the OCI specifications: parse, check, print. No disk, no network."""
