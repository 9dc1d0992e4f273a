"""Compare policies on equal terms: runs through DI-engine's own pipeline, their results, and a report."""
