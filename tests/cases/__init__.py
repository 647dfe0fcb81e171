"""Cases of the address space's rules: a picture before, one call, a picture after; run on any judged side."""
