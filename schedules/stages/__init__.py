"""Functions read as stages: what the schedules of every kind of machine begin with."""
