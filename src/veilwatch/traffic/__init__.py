"""Bytes to flow tables: captures are read, decoded, metered, and their handshakes understood."""
