"""A run: Ray, its workers, and the driver that publishes what they stage."""
