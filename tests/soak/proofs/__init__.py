"""One file a proof. Each has `NAME`, `ABOUT` and `prove(scale)`, which returns its line of result."""
