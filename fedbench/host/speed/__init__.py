"""How fast this host trains, measured and remembered."""
