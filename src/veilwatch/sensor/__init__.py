"""The service that watches a mirror port. See docs/architecture.md for what this room is for."""
