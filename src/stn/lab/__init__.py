"""The laboratory: what was measured and drawn with the library. The library imports none of it."""
