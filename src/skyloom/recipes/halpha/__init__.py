"""From a narrow band of HST to Halpha, anchored to MUSE, and the judgement of it."""
