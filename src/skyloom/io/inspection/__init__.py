"""What a file holds, and what is suspicious in it."""
