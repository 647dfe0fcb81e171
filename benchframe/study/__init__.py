"""Studies: why one strategy beats another, where it begins to, what the layout contributes."""
