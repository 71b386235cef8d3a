"""What guarding costs in time."""
