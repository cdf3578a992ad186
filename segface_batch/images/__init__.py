"""Pixels, without storage and without Ray: decode, crop, find where faces lie, encode and measure masks."""
