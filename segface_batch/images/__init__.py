"""Pixels, without storage and without Ray: decode images, crop faces, encode, paste and measure masks."""
