"""Figures of the objects that flow through Skyloom, for notebooks: what ``.plot()`` returns."""
