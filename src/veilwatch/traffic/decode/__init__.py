"""From captured bytes to packets: link, network, transport and tunnel headers."""

from veilwatch.traffic.decode.decoder import Decoder

__all__ = ["Decoder"]
