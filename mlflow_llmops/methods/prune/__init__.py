"""Cut what contributes least."""
