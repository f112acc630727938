"""`python -m veilwatch`."""

from veilwatch.cli.main import run

run()
