"""Files into a store, by a configuration, with a report."""
