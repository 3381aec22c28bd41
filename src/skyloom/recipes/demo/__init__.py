"""The demonstration: one mock galaxy through all four recipes, and how far from its truth they end."""

from __future__ import annotations

from skyloom.recipes.demo.run import DemoResult, demo

__all__ = ["DemoResult", "demo"]
