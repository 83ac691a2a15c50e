"""What becomes of tiles that are odd: what files say against what is known, and lost bands."""
