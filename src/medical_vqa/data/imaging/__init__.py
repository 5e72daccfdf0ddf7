"""From the bytes of an image file to an 8-bit picture: sniffing, decoding, windowing, limits."""
