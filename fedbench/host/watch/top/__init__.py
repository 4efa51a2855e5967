"""`fedbench top`: the state of a federation, this one or another's, in a terminal."""
