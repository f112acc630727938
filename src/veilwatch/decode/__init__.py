"""From captured bytes to packets: link, network, transport and tunnel headers."""

from veilwatch.decode.decoder import Decoder

__all__ = ["Decoder"]
