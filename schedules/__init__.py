"""TIR schedules: how operators run fast, by family of machines."""
