"""Subscribers: sessions from GTPv1-C, GTPv2-C and PFCP, or learned from tunnels; pseudonyms."""

from veilwatch.traffic.subscriber.directory import Directory
from veilwatch.traffic.subscriber.pseudonym import KeyRing, Rotation, read_key_file

__all__ = ["Directory", "KeyRing", "Rotation", "read_key_file"]
