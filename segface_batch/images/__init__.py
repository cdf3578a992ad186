"""Pixels, without storage and without Ray: decode images, crop faces, encode, paste and measure masks."""

#: Above the 61 megapixels of today's full-frame cameras; 240 MB of RGB, which a decode thread may hold.
DEFAULT_MAX_PIXELS = 80_000_000
