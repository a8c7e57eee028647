"""From torch to the graph of a faster runtime, at full precision: the row that keeps runtime and compression apart."""
