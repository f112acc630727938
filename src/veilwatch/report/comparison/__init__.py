"""The report that compares detectors."""
