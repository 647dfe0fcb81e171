"""What was published about VMA lookups, re-enacted at this machine's scale: ``benchframe claims``."""
