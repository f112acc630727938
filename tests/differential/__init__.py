"""Every decoded field of every real capture beside tshark."""
