"""What a run leaves behind: statistics, masks, and the protocol that writes them exactly once."""
