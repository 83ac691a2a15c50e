"""What values look like, and what about them is suspicious."""
