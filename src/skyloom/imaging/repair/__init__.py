"""Bad pixels found and filled, with errors that say so."""
