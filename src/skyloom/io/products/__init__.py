"""Maps, tables and other products, in our layout and in those of others."""
