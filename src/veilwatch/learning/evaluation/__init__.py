"""See docs/architecture.md for what this package is for."""
