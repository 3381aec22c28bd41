"""From a cube to noise, bins, stellar continua, emission lines and their maps."""
