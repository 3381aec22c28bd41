"""Stars found and masked."""
