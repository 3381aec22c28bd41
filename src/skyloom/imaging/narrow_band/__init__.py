"""From narrow and broad bands to the flux of a line."""
