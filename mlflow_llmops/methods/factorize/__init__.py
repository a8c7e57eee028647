"""Methods that write a network's matrices as products of narrower ones."""
