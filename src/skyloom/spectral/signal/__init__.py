"""Signal, noise and S/N of lines and continua, before any fit."""
