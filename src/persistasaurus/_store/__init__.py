"""The stores: one protocol, one plain class for each database."""
