"""Flow tables from one process to another: bounded, ordered, and without ever waiting at the front.

Tables go as Arrow through a Unix socket that the receiver listens on. Each is acknowledged once it
was handled, and sent again to a receiver that was started anew, which knows by its number what it
had handled before. What cannot wait is dropped at the sender, and counted: first early reports,
whose flows come again, then the archive's claim on records, last the records themselves.
"""

from veilwatch.sensor.link.inbox import Inbox, Message
from veilwatch.sensor.link.outbox import MAX_WAITING, Outbox
from veilwatch.sensor.link.parcel import Kind, Parcel
from veilwatch.sensor.link.sender import Sender

__all__ = ["MAX_WAITING", "Inbox", "Kind", "Message", "Outbox", "Parcel", "Sender"]
