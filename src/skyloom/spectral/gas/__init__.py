"""What fitted lines say about the gas."""
