"""The lab: emulated families and applications with real TLS, as a probe on N3 would see them.

The traffic is emulated and says so in every file. It shows that the chain works and what a
detector can tell from behaviour; figures on it say nothing about real malware. Volumes are
kept small: a bulk transfer stands for one of a thousand times its size.
"""

from veilwatch.corpus.lab.build import build_lab, field_capture
from veilwatch.corpus.lab.profile import Profile, load_profiles

__all__ = ["Profile", "build_lab", "field_capture", "load_profiles"]
