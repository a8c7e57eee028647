"""Every way to make a model smaller or faster, one file each under its verb's folder; `table.py` lists them."""
