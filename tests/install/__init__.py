"""Set-up's pure parts, and its edges on small made-up folders."""
