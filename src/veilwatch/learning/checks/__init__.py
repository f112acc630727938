"""What every detector has to do, as a suite of checks that any detector can be run through."""

from veilwatch.learning.checks.contract import CHECKS, Candidate, check_detector

__all__ = ["CHECKS", "Candidate", "check_detector"]
