"""Studies: why one strategy beats another (explain), where it begins to (breakeven), what the layout contributes
(layout)."""
