"""Blocks of work over threads: those of `skyloom.core.threads`, by their old name."""

from __future__ import annotations

from skyloom.core.threads import blocks, run_blocks, thread_count

__all__ = ["blocks", "run_blocks", "thread_count"]
