"""A detector and a sink for Veilwatch, as an example of plugins."""
