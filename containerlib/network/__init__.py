"""Networks: their records, bridges and addresses, and a container's place in them."""
