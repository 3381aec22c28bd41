"""How fast, how small and how right: jobs beside their peers, and checks against known truth."""
