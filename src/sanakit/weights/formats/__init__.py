"""One module per foreign format: its table of keys and its configuration files, both ways."""
